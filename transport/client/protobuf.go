package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gobwas/ws"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
)

// protobufCodec is that of protobuf.webpubsub.azure.v1 and of its reliable twin.
type protobufCodec struct{}

func (protobufCodec) op() ws.OpCode { return ws.OpBinary }

func (protobufCodec) decode(p []byte) (*frame, error) {
	var m pb.DownstreamMessage
	if err := proto.Unmarshal(p, &m); err != nil {
		return nil, fmt.Errorf("read the server's frame: %w", err)
	}
	f := &frame{}
	var err error
	switch m := m.Message.(type) {
	case *pb.DownstreamMessage_Ack:
		f.word, f.ackID = wordAck, m.Ack.GetAckId()
		if !m.Ack.GetSuccess() {
			f.fail = protobufFailure(m.Ack.GetError())
		}
	case *pb.DownstreamMessage_Data:
		f.word, f.seq = wordMessage, m.Data.GetSequenceId()
		f.event, err = protobufMessage(m.Data)
	case *pb.DownstreamMessage_System:
		switch m := m.System.GetMessage().(type) {
		case *pb.System_Connected:
			f.word, f.token = wordConnected, m.Connected.GetReconnectionToken()
			f.hello = Connected{ConnectionID: m.Connected.GetConnectionId(), UserID: m.Connected.GetUserId()}
		case *pb.System_Disconnected:
			f.word, f.text = wordDisconnected, m.Disconnected.GetReason()
		}
	case *pb.DownstreamMessage_Pong:
		f.word = wordPong
	case *pb.DownstreamMessage_InvokeResponse:
		f.word, f.id = wordInvokeResponse, m.InvokeResponse.GetInvocationId()
		if !m.InvokeResponse.GetSuccess() {
			f.fail = protobufFailure(m.InvokeResponse.GetError())
		} else if m.InvokeResponse.Data != nil {
			f.data, err = protobufPayload(m.InvokeResponse.Data)
		}
	case *pb.DownstreamMessage_StreamAck:
		f.word, f.id, f.next = wordStreamAck, m.StreamAck.GetStreamId(), m.StreamAck.GetExpectedSequenceId()
	case *pb.DownstreamMessage_StreamNack:
		f.word, f.id, f.next = wordStreamNack, m.StreamNack.GetStreamId(), m.StreamNack.GetExpectedSequenceId()
		f.fail = &failure{m.StreamNack.GetName(), m.StreamNack.GetMessage()}
	case *pb.DownstreamMessage_StreamClosed:
		f.word, f.id = wordStreamClosed, m.StreamClosed.GetStreamId()
		if m.StreamClosed.Error != nil {
			f.fail = protobufFailure(m.StreamClosed.Error)
		}
	case *pb.DownstreamMessage_GroupStateSnapshot:
		s := m.GroupStateSnapshot
		f.word, f.seq = wordState, s.GetSequenceId()
		f.event = GroupState{Group: s.GetGroup(), Snapshot: true, States: protobufStates(s.GetItems())}
	case *pb.DownstreamMessage_GroupStateUpdate:
		s := m.GroupStateUpdate
		f.word, f.seq = wordState, s.GetSequenceId()
		f.event = GroupState{Group: s.GetGroup(), States: protobufStates(s.GetItems())}
	}
	return f, err
}

func protobufFailure(e *pb.Error) *failure { return &failure{e.GetName(), e.GetMessage()} }

func protobufMessage(d *pb.Data) (Message, error) {
	m := Message{Group: d.GetGroup(), Metadata: d.GetMetadata()}
	if s := d.Stream; s != nil {
		m.Stream = &engine.StreamPart{ID: s.GetStreamId(), Seq: s.GetStreamSequenceId(), End: s.GetEndOfStream()}
		if e := s.Error; e != nil {
			m.Stream.Err = &engine.StreamError{Name: e.GetName(), Message: e.GetMessage(), UserCode: e.GetUserErrorCode()}
		}
		if m.Stream.End && d.Data == nil {
			m.Payload.Data = []byte{} // the last part may have none
			return m, nil
		}
	}
	var err error
	m.Payload, err = protobufPayload(d.Data)
	return m, err
}

func protobufPayload(d *pb.MessageData) (engine.Payload, error) {
	switch d := d.GetData().(type) {
	case *pb.MessageData_TextData:
		return engine.Payload{Type: engine.Text, Data: []byte(d.TextData)}, nil
	case *pb.MessageData_JsonData:
		return engine.Payload{Type: engine.JSON, Data: []byte(d.JsonData)}, nil
	case *pb.MessageData_BinaryData:
		b := d.BinaryData
		if b == nil {
			b = []byte{}
		}
		return engine.Payload{Type: engine.Binary, Data: b}, nil
	case *pb.MessageData_ProtobufData:
		b, err := proto.Marshal(d.ProtobufData)
		if err != nil {
			return engine.Payload{}, fmt.Errorf("read the data of a protobuf message: %w", err)
		}
		return engine.Payload{Type: engine.Protobuf, Data: b}, nil
	}
	return engine.Payload{}, errors.New("read a message: its data is missing or of an unknown kind")
}

func protobufStates(items []*pb.GroupStateItem) []engine.GroupState {
	states := make([]engine.GroupState, len(items))
	for i, s := range items {
		states[i] = engine.GroupState{
			ConnID: engine.ConnID(s.GetConnectionId()), UserID: engine.UserID(s.GetUserId()),
			UpdatedAt: time.UnixMilli(s.GetUpdatedAt()),
		}
		if s.State != nil {
			if states[i].State = s.State.Entries; states[i].State == nil {
				states[i].State = map[string]string{} // one without entries is a state
			}
		}
	}
	return states
}

func (protobufCodec) encode(r *request) ([]byte, error) {
	m, err := protobufRequest(r)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", r.verb, err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", r.verb, err)
	}
	return b, nil
}

func protobufRequest(r *request) (*pb.UpstreamMessage, error) {
	var ackID *uint64
	if r.ackID > 0 {
		ackID = &r.ackID
	}
	data, err := protobufData(r.payload)
	if err != nil {
		return nil, err
	}
	m := &pb.UpstreamMessage{}
	switch r.verb {
	case verbJoin:
		m.Message = &pb.UpstreamMessage_JoinGroup{JoinGroup: &pb.JoinGroup{Group: r.name, AckId: ackID}}
	case verbLeave:
		m.Message = &pb.UpstreamMessage_LeaveGroup{LeaveGroup: &pb.LeaveGroup{Group: r.name, AckId: ackID}}
	case verbSend, verbStreamStart:
		s := &pb.SendToGroup{Group: r.name, AckId: ackID, Data: data, Metadata: r.metadata}
		if r.noEcho {
			s.NoEcho = &r.noEcho
		}
		if r.ttl < 0 || r.ttl > maxTTL {
			return nil, fmt.Errorf("TTL %v is not between 0 and %v", r.ttl, maxTTL)
		}
		if r.ttl > 0 {
			s.TtlSeconds = proto.Uint32(uint32((r.ttl + time.Second - 1) / time.Second))
		}
		if r.verb == verbStreamStart {
			s.Stream = &pb.StreamStartInfo{StreamId: r.id}
			if r.idle > 0 {
				s.Stream.IdleTimeoutMs = proto.Uint32(uint32(r.idle.Milliseconds()))
			}
		}
		m.Message = &pb.UpstreamMessage_SendToGroup{SendToGroup: s}
	case verbEvent:
		m.Message = &pb.UpstreamMessage_Event{Event: &pb.Event{Event: r.name, AckId: ackID, Data: data, Metadata: r.metadata}}
	case verbInvoke:
		m.Message = &pb.UpstreamMessage_InvokeEvent{InvokeEvent: &pb.InvokeEvent{Event: r.name, InvocationId: r.id, Data: data}}
	case verbCancel:
		m.Message = &pb.UpstreamMessage_CancelInvocation{CancelInvocation: &pb.CancelInvocation{InvocationId: r.id}}
	case verbStreamData:
		d := &pb.StreamData{StreamId: r.id, Data: data}
		if data != nil {
			d.StreamSequenceId = &r.seq
		}
		m.Message = &pb.UpstreamMessage_StreamData{StreamData: d}
	case verbStreamEnd:
		e := &pb.StreamEnd{StreamId: r.id}
		if r.fail != nil {
			e.Error = &pb.StreamEnd_Error{Message: &r.fail.Message, UserErrorCode: &r.fail.UserCode}
		}
		m.Message = &pb.UpstreamMessage_StreamEnd{StreamEnd: e}
	case verbSetState:
		s := &pb.SetGroupState{Group: r.name, AckId: ackID}
		if r.state != nil {
			s.State = &pb.GroupState{Entries: r.state}
		}
		m.Message = &pb.UpstreamMessage_SetGroupState{SetGroupState: s}
	case verbWatchState:
		m.Message = &pb.UpstreamMessage_SubscribeGroupState{SubscribeGroupState: &pb.SubscribeGroupState{Group: r.name, AckId: ackID}}
	case verbUnwatchState:
		m.Message = &pb.UpstreamMessage_UnsubscribeGroupState{UnsubscribeGroupState: &pb.UnsubscribeGroupState{Group: r.name, AckId: ackID}}
	case verbSequenceAck:
		m.Message = &pb.UpstreamMessage_SequenceAck{SequenceAck: &pb.SequenceAck{SequenceId: r.seq}}
	case verbPing:
		m.Message = &pb.UpstreamMessage_Ping{Ping: &pb.Ping{}}
	}
	return m, nil
}

// protobufData returns p as a message's content; nil for nil. proto.Marshal refuses
// what is not UTF-8.
func protobufData(p *engine.Payload) (*pb.MessageData, error) {
	if p == nil {
		return nil, nil
	}
	switch p.Type {
	case engine.Text:
		return &pb.MessageData{Data: &pb.MessageData_TextData{TextData: string(p.Data)}}, nil
	case engine.JSON:
		if !json.Valid(p.Data) {
			return nil, errors.New("the data is not one JSON text")
		}
		return &pb.MessageData{Data: &pb.MessageData_JsonData{JsonData: string(p.Data)}}, nil
	case engine.Binary:
		return &pb.MessageData{Data: &pb.MessageData_BinaryData{BinaryData: p.Data}}, nil
	case engine.Protobuf:
		var a anypb.Any
		if err := proto.Unmarshal(p.Data, &a); err != nil {
			return nil, fmt.Errorf("the data is not a serialized Any: %w", err)
		}
		return &pb.MessageData{Data: &pb.MessageData_ProtobufData{ProtobufData: &a}}, nil
	}
	return nil, fmt.Errorf("data type %d is unknown", p.Type)
}
