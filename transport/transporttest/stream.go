package transporttest

import (
	"fmt"
)

func stream(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.say(`{"type":"sendToGroup","group":"g","noEcho":true,"stream":{"streamId":"s"}}`)
	bo.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":1}`)
	for i := 1; i <= 3; i++ {
		bo.say(`{"type":"streamData","streamId":"s","streamSequenceId":%d,"dataType":"text","data":"part %[1]d"}`, i)
		bo.hears(fmt.Sprintf(`{"type":"streamAck","streamId":"s","expectedSequenceId":%d}`, i+1))
		ann.hears(fmt.Sprintf(`{"type":"message","from":"group","group":"g","fromUserId":"bo","dataType":"text","data":"part %d","stream":{"streamId":"s","streamSequenceId":%[1]d}}`, i))
	}
	bo.say(`{"type":"streamEnd","streamId":"s"}`)
	bo.hears(`{"type":"streamClosed","streamId":"s"}`)
	ann.hearsLike(`{"type":"message","from":"group","group":"g","dataType":"text","data":"","stream":{"streamId":"s","streamSequenceId":4,"endOfStream":true}}`)
	bo.say(`{"type":"sendToGroup","group":"g","noEcho":true,"stream":{"streamId":"s","idleTimeoutMs":60000}}`) // the id is free again
	bo.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":1}`)
	bo.say(`{"type":"streamEnd","streamId":"s","error":{"message":"gave up","userErrorCode":"E42"}}`)
	bo.hears(`{"type":"streamClosed","streamId":"s"}`)
	ann.hearsLike(`{"type":"message","group":"g","stream":{"streamId":"s","streamSequenceId":1,"endOfStream":true,
		"error":{"name":"UserError","message":"gave up","userErrorCode":"E42"}}}`)
}

func streamRules(p *play) {
	ann := p.client("ann", "webpubsub.joinLeaveGroup", "webpubsub.sendToGroup.g")
	bo := p.full("bo")
	bo.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	const data = `{"type":"streamData","streamId":"s","streamSequenceId":%d,"dataType":"text","data":"x"}`
	ann.say(data, 1)
	ann.hearsLike(`{"type":"streamClosed","streamId":"s","error":{"name":"StreamNotFound"}}`)
	ann.say(`{"type":"sendToGroup","group":"elsewhere","stream":{"streamId":"s"}}`)
	ann.hearsLike(`{"type":"streamClosed","streamId":"s","error":{"name":"Forbidden"}}`)
	ann.say(`{"type":"sendToGroup","group":"g","stream":{"streamId":"s"}}`)
	ann.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":1}`)
	ann.say(`{"type":"sendToGroup","group":"g","stream":{"streamId":"s"}}`)
	ann.hearsLike(`{"type":"streamClosed","streamId":"s","error":{"name":"BadRequest"}}`)
	ann.say(data, 5)
	ann.hearsLike(`{"type":"streamNack","streamId":"s","expectedSequenceId":1,"name":"InvalidSequenceId"}`)
	ann.say(`{"type":"streamData","streamId":"s"}`) // a sign of life
	ann.say(data, 1)                                // the gap has not ended it
	ann.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":2}`)
	ann.say(data, 1)
	ann.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":2}`)
	bo.hearsLike(`{"type":"message","stream":{"streamId":"s","streamSequenceId":1}}`)
	p.must(p.engine.Hub(hub).CloseConn(p.ctx(), ann.id, "")) // lost for good
	bo.hearsLike(`{"type":"message","stream":{"streamId":"s","streamSequenceId":2,"endOfStream":true,"error":{"name":"Cancelled"}}}`)
	bo.pings() // the part that came twice was published once
}

func groupState(p *play) {
	roles := []string{"webpubsub.joinLeaveGroup", "webpubsub.setGroupState", "webpubsub.getGroupState"}
	ann, bo, cy := p.client("ann", roles...), p.client("bo", roles...), p.client("cy", "webpubsub.joinLeaveGroup")
	bo.asks("1", `{"type":"subscribeGroupState","group":"g"}`, "Forbidden")
	for _, a := range []*actor{ann, bo, cy} {
		a.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	}
	cy.asks("2", `{"type":"setGroupState","group":"g","state":{"mood":"ok"}}`, "Forbidden")
	cy.asks("3", `{"type":"subscribeGroupState","group":"g"}`, "Forbidden")
	ann.asks("2", `{"type":"setGroupState","group":"g","state":{"mood":"ok"}}`, "")
	bo.say(`{"type":"subscribeGroupState","group":"g","ackId":2}`)
	bo.acked("2", "") // and then the snapshot
	bo.hearsLike(fmt.Sprintf(`{"type":"groupStateSnapshot","group":"g","items":[{"connectionId":"%s","userId":"ann","state":{"mood":"ok"}}]}`, ann.id))
	ann.asks("3", `{"type":"setGroupState","group":"g","state":{"mood":"fine"}}`, "")
	bo.hearsLike(fmt.Sprintf(`{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"%s","userId":"ann","state":{"mood":"fine"}}]}`, ann.id))
	ann.asks("4", `{"type":"setGroupState","group":"g","state":{"mood":"`+page(1, 512)+`"}}`, "BadRequest")
	ann.asks("5", `{"type":"setGroupState","group":"g"}`, "")
	m := bo.hearsLike(fmt.Sprintf(`{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"%s"}]}`, ann.id))
	if item := m["items"].([]any)[0].(map[string]any); item["state"] != nil {
		p.Fatalf("state that was cleared is told as %v", item)
	}
	bo.asks("3", `{"type":"unsubscribeGroupState","group":"g"}`, "")
	ann.asks("6", `{"type":"setGroupState","group":"g","state":{"mood":"alone"}}`, "")
	bo.pings()
	p.must(p.engine.Hub(hub).SendToConn(p.ctx(), bo.id, text("on"), nil))
	bo.hears(`{"type":"message","from":"server","dataType":"text","data":"on"}`)
}
