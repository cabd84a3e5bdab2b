package mqtt

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/fanfare/fanfare/engine"
)

// What this door leaves with the engine as opaque values travels to other nodes as
// JSON: the attributes of messages and last messages, the options of memberships, the
// session and the details of a connection ([engine.ConnState]).

// plain is the JSON; one member is there.
type plain struct {
	Publication  *plainPublication  `json:"publication,omitempty"`
	Subscription *plainSubscription `json:"subscription,omitempty"`
	Session      *plainSession      `json:"session,omitempty"`
	Details      *Details           `json:"details,omitempty"`
}

type plainPublication struct {
	Topic         string     `json:"topic,omitempty"`
	QoS           byte       `json:"qos,omitempty"`
	Format        *byte      `json:"format,omitempty"`
	ContentType   string     `json:"contentType,omitempty"`
	ResponseTopic string     `json:"responseTopic,omitempty"`
	Correlation   *[]byte    `json:"correlation,omitempty"`
	User          []Property `json:"user,omitempty"`
}

type plainSubscription struct {
	QoS byte `json:"qos,omitempty"`
	ID  int  `json:"id,omitempty"`
}

type plainSession struct {
	ID       string             `json:"id"`
	Held     []uint16           `json:"held,omitempty"`
	Released []uint16           `json:"released,omitempty"`
	NoLocal  []engine.GroupName `json:"noLocal,omitempty"`
}

// Marshal returns a value that this door left with the engine as bytes, for another
// node. ok is false for a value of somebody else's.
func Marshal(v any) (data []byte, ok bool) {
	var p plain
	switch v := v.(type) {
	case *publication:
		p.Publication = &plainPublication{
			Topic: v.topic, QoS: v.qos, ContentType: v.contentType, ResponseTopic: v.responseTopic, User: v.user,
		}
		if v.hasFormat {
			p.Publication.Format = &v.format
		}
		if v.correlation != nil {
			p.Publication.Correlation = &v.correlation
		}
	case *subscription:
		p.Subscription = &plainSubscription{v.qos, v.id}
	case *state:
		p.Session = v.plain()
	case *Details:
		p.Details = v
	default:
		return nil, false
	}
	data, err := json.Marshal(p)
	if err != nil {
		panic("mqtt: plain data cannot be encoded: " + err.Error()) // it is made of strings and numbers
	}
	return data, true
}

// Unmarshal returns the value that Marshal made data of.
func Unmarshal(data []byte) (any, error) {
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("mqtt: a value of another node: %w", err)
	}
	switch {
	case p.Publication != nil:
		v := &publication{
			topic: p.Publication.Topic, qos: min(p.Publication.QoS, 2), contentType: p.Publication.ContentType,
			responseTopic: p.Publication.ResponseTopic, user: p.Publication.User,
		}
		if f := p.Publication.Format; f != nil {
			v.hasFormat, v.format = true, *f
		}
		if c := p.Publication.Correlation; c != nil {
			v.correlation = append([]byte{}, *c...)
		}
		return v, nil
	case p.Subscription != nil:
		return &subscription{min(p.Subscription.QoS, 2), p.Subscription.ID}, nil
	case p.Session != nil:
		return p.Session.state(), nil
	case p.Details != nil:
		return p.Details, nil
	}
	return nil, fmt.Errorf("mqtt: a value of another node is none of MQTT's")
}

// plain returns the session without what is under way on its wire, which ends with
// that: a publication of QoS 1 that was not acknowledged is sent again.
func (st *state) plain() *plainSession {
	st.mu.Lock()
	defer st.mu.Unlock()
	return &plainSession{ID: st.id, Held: sortedKeys(st.held), Released: slices.Clone(st.released), NoLocal: sortedKeys(st.noLocal)}
}

func (p *plainSession) state() *state {
	st := &state{id: p.ID}
	for _, id := range p.Held {
		st.take(&publish{qos: 2, id: id})
	}
	for _, id := range p.Released {
		st.received(id)
	}
	for _, g := range p.NoLocal {
		st.local(g, true)
	}
	return st
}

// sortedKeys returns m's keys in order.
func sortedKeys[K interface{ ~uint16 | ~string }](m map[K]bool) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
