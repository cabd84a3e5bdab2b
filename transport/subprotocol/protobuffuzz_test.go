package subprotocol_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// protobufReference reads a parsed message as the protocol's rules do, one after the
// other. It shares no code with the decoder.
func protobufReference(u *pb.UpstreamMessage) (in subprotocol.Inbound, err error) {
	r := &engine.Request{}
	in = subprotocol.Inbound{Kind: subprotocol.InRequest, Request: r}
	ack := func(id *uint64) {
		if r.HasAck = id != nil; r.HasAck {
			r.AckID = engine.AckID(*id)
		}
	}
	group := func(op engine.Op, name string, id *uint64) error {
		ack(id)
		r.Op, r.Group = op, engine.GroupName(name)
		if strings.TrimSpace(name) == "" || utf8.RuneCountInString(name) > 1024 {
			return errors.New("group")
		}
		return nil
	}
	event := func(name string, data *pb.MessageData, pairs map[string]string, stream *pb.StreamStartInfo) error {
		r.Op, r.Event = engine.OpEvent, engine.EventName(name)
		if !eventPattern.MatchString(name) || stream != nil {
			return errors.New("event")
		}
		return protobufReferenceContent(r, data, pairs, in.Invocation != "")
	}
	stream := func(op engine.Op, id string) error {
		r.Op, r.Stream = op, &engine.StreamRequest{ID: id}
		return referenceID(id)
	}
	switch m := u.Message.(type) {
	case *pb.UpstreamMessage_SendToGroup:
		s := m.SendToGroup
		err = group(engine.OpSend, s.Group, s.AckId)
		r.NoEcho = s.GetNoEcho()
		r.TTL = time.Duration(s.GetTtlSeconds()) * time.Second
		switch {
		case err != nil:
		case s.GetTtlSeconds() > 300:
			err = errors.New("ttl")
		case s.Stream == nil:
			err = protobufReferenceContent(r, s.Data, s.Metadata, false)
		default:
			err = stream(engine.OpStreamStart, s.Stream.StreamId)
			r.Stream.Idle = time.Duration(s.Stream.GetIdleTimeoutMs()) * time.Millisecond
			if s.Data != nil || s.AckId != nil || s.TtlSeconds != nil || len(s.Metadata) > 0 || r.Stream.Idle > 24*time.Hour || s.Stream.IdleTimeoutMs != nil && r.Stream.Idle == 0 {
				err = errors.New("stream start")
			}
		}
	case *pb.UpstreamMessage_Event:
		ack(m.Event.AckId)
		err = event(m.Event.Event, m.Event.Data, m.Event.Metadata, m.Event.Stream)
	case *pb.UpstreamMessage_JoinGroup:
		err = group(engine.OpJoin, m.JoinGroup.Group, m.JoinGroup.AckId)
	case *pb.UpstreamMessage_LeaveGroup:
		err = group(engine.OpLeave, m.LeaveGroup.Group, m.LeaveGroup.AckId)
	case *pb.UpstreamMessage_SequenceAck:
		in = subprotocol.Inbound{Kind: subprotocol.InSequenceAck, Sequence: engine.SequenceID(m.SequenceAck.SequenceId)}
	case *pb.UpstreamMessage_Ping:
		in = subprotocol.Inbound{Kind: subprotocol.InPing}
	case *pb.UpstreamMessage_InvokeEvent:
		i := m.InvokeEvent
		if in.Invocation, err = i.InvocationId, referenceID(i.InvocationId); err == nil {
			err = event(i.Event, i.Data, i.Metadata, i.Stream)
		}
	case *pb.UpstreamMessage_CancelInvocation:
		in = subprotocol.Inbound{Kind: subprotocol.InCancel, Invocation: m.CancelInvocation.InvocationId}
		err = referenceID(in.Invocation)
	case *pb.UpstreamMessage_StreamData:
		d := m.StreamData
		if err = stream(engine.OpStreamData, d.StreamId); err != nil {
			break
		}
		r.Stream.Seq = d.GetStreamSequenceId()
		if (d.Data == nil) != (d.StreamSequenceId == nil) || d.StreamSequenceId != nil && r.Stream.Seq == 0 {
			err = errors.New("part")
		} else if d.Data != nil {
			err = protobufReferenceContent(r, d.Data, nil, false)
		}
	case *pb.UpstreamMessage_StreamEnd:
		err = stream(engine.OpStreamEnd, m.StreamEnd.StreamId)
		if e := m.StreamEnd.Error; e != nil {
			r.Stream.Err = &engine.StreamError{Name: "UserError", Message: e.GetMessage(), UserCode: e.GetUserErrorCode()}
			if len(e.GetMessage()) > 4096 || len(e.GetUserErrorCode()) > 256 {
				err = errors.New("error")
			}
		}
	case *pb.UpstreamMessage_SetGroupState:
		s := m.SetGroupState
		err = group(engine.OpSetState, s.Group, s.AckId)
		if s.State != nil {
			r.State = map[string]string{}
			n := 0
			for k, v := range s.State.Entries {
				r.State[k] = v
				n += len(k) + len(v)
			}
			if n > 16<<10 {
				err = errors.New("state")
			}
		}
	case *pb.UpstreamMessage_SubscribeGroupState:
		err = group(engine.OpWatchState, m.SubscribeGroupState.Group, m.SubscribeGroupState.AckId)
	case *pb.UpstreamMessage_UnsubscribeGroupState:
		err = group(engine.OpUnwatchState, m.UnsubscribeGroupState.Group, m.UnsubscribeGroupState.AckId)
	default:
		err = errors.New("no message")
	}
	return in, err
}

func referenceID(id string) error {
	if id == "" || len(id) > 256 {
		return errors.New("id")
	}
	return nil
}

// protobufReferenceContent leaves an Any as the generated type writes it.
func protobufReferenceContent(r *engine.Request, data *pb.MessageData, pairs map[string]string, optional bool) error {
	n := 0
	for k, v := range pairs {
		n += len(k) + len(v)
		if !validPair(k, v) {
			return errors.New("metadata")
		}
		optional = true
		r.Metadata = pairs
	}
	if n > 8192 || data == nil && !optional {
		return errors.New("content")
	}
	switch d := data.GetData().(type) {
	case *pb.MessageData_TextData:
		r.Payload = payload(engine.Text, d.TextData)
	case *pb.MessageData_BinaryData:
		r.Payload = payload(engine.Binary, string(d.BinaryData))
	case *pb.MessageData_ProtobufData:
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.ProtobufData)
		r.Payload = payload(engine.Protobuf, string(b))
		return err
	case *pb.MessageData_JsonData:
		r.Payload = payload(engine.JSON, d.JsonData)
		if !json.Valid([]byte(d.JsonData)) || nesting([]byte(d.JsonData)) > 63 {
			return errors.New("JSON")
		}
	default:
		r.Payload = payload(engine.Text, "")
		if data != nil {
			return errors.New("no case")
		}
	}
	return nil
}

// What the decoder takes, the generated type takes as well, and to both it means the
// same. Written anew by the generated type, a message is taken exactly when the
// protocol's rules allow it.
func FuzzProtobufDecode(f *testing.F) {
	for _, v := range upstreamVectors {
		f.Add(unhex(f, v.hex))
	}
	for _, u := range []*pb.UpstreamMessage{
		upSend(&pb.SendToGroup{Group: "g", AckId: new(uint64(7)), Data: anyData("type.x", "\x01"), NoEcho: new(true), TtlSeconds: new(uint32(300)), Metadata: map[string]string{"k": "v", "z": ""}}),
		upSend(&pb.SendToGroup{Group: "g", Data: binaryData("\xff")}),
		upEvent(&pb.Event{Event: "e", Metadata: map[string]string{"k": "v"}}),
		upInvoke(&pb.InvokeEvent{Event: "e", InvocationId: "1", Data: jsonData("null"), Stream: &pb.StreamStartInfo{StreamId: "s"}}),
		upStreamData(&pb.StreamData{StreamId: "s"}),
		upStreamEnd(&pb.StreamEnd{StreamId: "s", Error: &pb.StreamEnd_Error{Message: new("m"), UserErrorCode: new("E")}}),
		upState(&pb.SetGroupState{Group: "g", State: &pb.GroupState{Entries: map[string]string{"": "v", "k": ""}}}),
		{Message: &pb.UpstreamMessage_CancelInvocation{CancelInvocation: &pb.CancelInvocation{InvocationId: "1"}}},
		{Message: &pb.UpstreamMessage_SubscribeGroupState{SubscribeGroupState: &pb.SubscribeGroupState{Group: "g"}}},
		{Message: &pb.UpstreamMessage_UnsubscribeGroupState{UnsubscribeGroupState: &pb.UnsubscribeGroupState{Group: "g"}}},
	} {
		f.Add(wire(f, u))
	}
	f.Add(unhex(f, "4A00"+"C83E01"+"CD3E01020304"+"C93E0102030405060708"+"4A00"))
	f.Add(unhex(f, "32060A01670A0168"))
	_, dec := subprotocol.Protobuf()
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		got, err := dec.Decode(subprotocol.BinaryFrame, p)
		if !bytes.Equal(p, before) {
			t.Fatal("the decoder changed its input")
		}
		var refused *subprotocol.RefusedError
		if err != nil && (!errors.As(err, &refused) || refused.Code != engine.CloseInvalidData || len(refused.Detail) > 1024) {
			t.Fatalf("got %v", err)
		}
		u := &pb.UpstreamMessage{}
		if fault := proto.Unmarshal(p, u); fault != nil {
			if err == nil {
				t.Fatalf("taken, but the generated type says %v: %s", fault, describe(got))
			}
			return
		}
		if err == nil {
			compareProtobuf(t, u, got, nil)
		}
		// The same without what only makes readers disagree.
		dropUnknown(u.ProtoReflect())
		got, err = dec.Decode(subprotocol.BinaryFrame, wire(t, u))
		compareProtobuf(t, u, got, err)
	})
}

// compareProtobuf compares what became of u with what it should.
func compareProtobuf(t *testing.T, u *pb.UpstreamMessage, got subprotocol.Inbound, err error) {
	t.Helper()
	wish, fault := protobufReference(u)
	if (fault == nil) != (err == nil) {
		t.Fatalf("got %s, %v; wish %v\n%s", describe(got), err, fault, protojson.Format(u))
	}
	if err != nil {
		return
	}
	if r := got.Request; r != nil && r.Payload.Type == engine.Protobuf && !bytes.Equal(r.Payload.Data, wish.Request.Payload.Data) {
		// Its author wrote it in another way. It must be the same to a reader.
		var a, b anypb.Any
		if err := errors.Join(proto.Unmarshal(r.Payload.Data, &a), proto.Unmarshal(wish.Request.Payload.Data, &b)); err != nil || !proto.Equal(&a, &b) {
			t.Fatalf("%v: got %x, wish %x", err, r.Payload.Data, wish.Request.Payload.Data)
		}
		wish.Request.Payload = r.Payload
	}
	if !reflect.DeepEqual(got, wish) {
		t.Fatalf("got  %s\nwish %s", describe(got), describe(wish))
	}
}

// dropUnknown drops unknown fields throughout m.
func dropUnknown(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() == protoreflect.MessageKind && !f.IsMap() && !f.IsList() {
			dropUnknown(v.Message())
		}
		return true
	})
}

// Whatever a server puts into a message, each kind of connection gets what the
// generated type can read, and it says the same.
func FuzzProtobufEncode(f *testing.F) {
	f.Add("lobby", "hi", "k", "v", "s", "E42", uint8(engine.Text), uint64(1))
	f.Add("", "\xff\x00\u2028", "\n", "\xed\xa0\x80", "", "", uint8(engine.JSON), uint64(0))
	f.Add("g", "\n\x06type.x\x12\x01\x01", "", "é", "s", "", uint8(engine.Protobuf), uint64(1<<63))
	f.Add("g", "", "", "", "s", "", uint8(engine.Protobuf), uint64(1))
	f.Add("g", "\n\x06type.x\x12\x01", "", "", "\xff", "\xff", uint8(engine.Protobuf), uint64(300))
	plain, _ := subprotocol.Protobuf()
	reliable, _ := subprotocol.ReliableProtobuf()
	f.Fuzz(func(t *testing.T, group, data, key, value, id, code string, typ uint8, seq uint64) {
		m := &engine.Message{
			Group: engine.GroupName(group), Payload: payload(engine.DataType(typ&3), data), Metadata: engine.Metadata{key: value},
			Stream: &engine.StreamPart{ID: id, Seq: seq, End: code != "", Err: &engine.StreamError{Name: key, Message: value, UserCode: code}},
		}
		wish := &pb.Data{From: "server", Metadata: map[string]string{mended(key): mended(value)}, Stream: &pb.StreamInfo{
			StreamId: mended(id), StreamSequenceId: seq, Error: &pb.StreamInfo_Error{Name: mended(key), Message: mended(value)},
		}}
		if group != "" {
			wish.From, wish.Group = "group", new(mended(group))
		}
		if code != "" {
			wish.Stream.EndOfStream, wish.Stream.Error.UserErrorCode = new(true), new(mended(code))
		}
		var a anypb.Any
		switch {
		case m.Payload.Type == engine.Text:
			wish.Data = textData(mended(data))
		case m.Payload.Type == engine.JSON && data == "":
			wish.Data = jsonData("null")
		case m.Payload.Type == engine.JSON:
			wish.Data = jsonData(mended(data))
		case m.Payload.Type == engine.Protobuf && proto.Unmarshal([]byte(data), &a) == nil:
			wish.Data = &pb.MessageData{Data: &pb.MessageData_ProtobufData{ProtobufData: &a}}
		default:
			wish.Data = binaryData(data)
		}
		got := received(t, whole(t, plain, m, engine.Own{Seq: engine.SequenceID(seq)}))
		if _, bare := got.GetData().GetData().GetData().(*pb.MessageData_BinaryData); bare && m.Payload.Type == engine.Protobuf {
			wish.Data = binaryData(data) // the Any has a group, or a known field of another wire type
		}
		if !proto.Equal(got, downData(wish)) {
			t.Fatalf("got  %s\nwish %s", protojson.Format(got), protojson.Format(wish))
		}
		if seq != 0 {
			wish.SequenceId = &seq
		}
		if got := received(t, whole(t, reliable, m, engine.Own{Seq: engine.SequenceID(seq)})); !proto.Equal(got, downData(wish)) {
			t.Fatalf("reliable: got  %s\nwish %s", protojson.Format(got), protojson.Format(wish))
		}
	})
}

// mended returns s with a question mark for each byte that is not UTF-8.
func mended(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}
