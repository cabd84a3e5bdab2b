import java.time.Duration;
import java.util.List;

import com.azure.core.credential.AzureKeyCredential;
import com.azure.core.exception.HttpResponseException;
import com.azure.core.http.HttpHeaderName;
import com.azure.core.http.rest.RequestOptions;
import com.azure.core.util.BinaryData;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;
import com.azure.messaging.webpubsub.models.WebPubSubPermission;

/** azure-messaging-webpubsub: every method of the service client, and what clients see of it. */
public final class ServiceSuite {
    private static final WebPubSubContentType TEXT = WebPubSubContentType.TEXT_PLAIN;
    private static final WebPubSubContentType JSON = WebPubSubContentType.APPLICATION_JSON;
    private static final WebPubSubContentType BINARY = WebPubSubContentType.APPLICATION_OCTET_STREAM;

    public static void main(String[] args) {
        Check check = new Check();
        check.run("send to all: text, JSON, binary, excluded, filter, TTL", ServiceSuite::sendToAll);
        check.run("send to a group", ServiceSuite::sendToGroup);
        check.run("send to a user", ServiceSuite::sendToUser);
        check.run("send to a connection", ServiceSuite::sendToConnection);
        check.run("membership by connection", ServiceSuite::membershipByConnection);
        check.run("membership by user", ServiceSuite::membershipByUser);
        check.run("membership by filter", ServiceSuite::membershipByFilter);
        check.run("exists: connections, groups, users", ServiceSuite::existence);
        check.run("permissions: grant, check, revoke", ServiceSuite::permissions);
        check.run("close one connection", ServiceSuite::closeOne);
        check.run("close all but some: hub, group, user", ServiceSuite::closeMany);
        check.run("client tokens: user, roles, groups, time", ServiceSuite::tokens);
        check.run("endpoint and key; a wrong key is refused", ServiceSuite::keys);
        check.finish();
    }

    private static WebPubSubServiceClient service(String hub) {
        return new WebPubSubServiceClientBuilder().connectionString(System.getenv("FANFARE_CONNECTION_STRING")).hub(hub).buildClient();
    }

    private static GetClientAccessTokenOptions user(String id) {
        return new GetClientAccessTokenOptions().setUserId(id);
    }

    private static Wire open(String hub, GetClientAccessTokenOptions token) throws Exception {
        WebPubSubServiceClient s = service(hub);
        return new Wire(s, s.getClientAccessToken(token).getUrl());
    }

    private static RequestOptions with(String... pairs) {
        RequestOptions o = new RequestOptions();
        for (int i = 0; i < pairs.length; i += 2) {
            o.addQueryParam(pairs[i], pairs[i + 1]);
        }
        return o;
    }

    private static BinaryData bytes(int... values) {
        byte[] b = new byte[values.length];
        for (int i = 0; i < b.length; i++) {
            b[i] = (byte) values[i];
        }
        return BinaryData.fromBytes(b);
    }

    private static void send(WebPubSubServiceClient s, BinaryData data, WebPubSubContentType type, RequestOptions o) {
        s.sendToAllWithResponse(data, type, data.getLength(), o);
    }

    private static void sendToAll() throws Exception {
        String hub = "java_all";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann")); Wire bo = open(hub, user("bo"))) {
            s.sendToAll("grüße 👋", TEXT);
            s.sendToAll("{\"n\":[1,null]}", JSON);
            send(s, bytes(0, 1, 255), BINARY, null);
            s.sendToAllWithResponse(BinaryData.fromString("plain"), with().setHeader(HttpHeaderName.CONTENT_TYPE, "text/plain"));
            send(s, BinaryData.fromString("not ann"), TEXT, with("excluded", ann.id, "excluded", "ghost"));
            send(s, BinaryData.fromString("ann alone"), TEXT, with("filter", "userId eq 'ann'", "messageTtlSeconds", "30"));
            List<String> first = List.of("server text \"grüße 👋\"", "server json {\"n\":[1,null]}", "server binary \"AAH/\"", "server text \"plain\"");
            Check.equal(plus(first, "server text \"ann alone\""), ann.untilNow(), "what ann received");
            Check.equal(plus(first, "server text \"not ann\""), bo.untilNow(), "what bo received");
        }
        HttpResponseException e = Check.refused(400, () -> send(s, BinaryData.fromString("x"), TEXT, with("filter", "ab eq 1")));
        if (!e.getMessage().contains("Token 'ab' is not supported.")) {
            throw new AssertionError("expected the refused token in the message, saw " + e.getMessage());
        }
    }

    private static List<String> plus(List<String> list, String last) {
        List<String> all = new java.util.ArrayList<>(list);
        all.add(last);
        return all;
    }

    private static void sendToGroup() throws Exception {
        String hub = "java_group";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann").addGroup("the room")); Wire bo = open(hub, user("bo").addGroup("the room")); Wire cy = open(hub, user("cy"))) {
            s.sendToGroup("the room", "hi", TEXT);
            s.sendToGroup("the room", "{\"a\":1}", JSON);
            s.sendToGroupWithResponse("the room", bytes(7), BINARY, 1, with("excluded", bo.id));
            s.sendToGroupWithResponse("the room", BinaryData.fromString("bo"), TEXT, 2, with("filter", "startswith(userId, 'b')"));
            s.sendToGroupWithResponse("nobody", BinaryData.fromString("lost"), with().setHeader(HttpHeaderName.CONTENT_TYPE, "text/plain"));
            Check.equal(List.of("group the room text \"hi\"", "group the room json {\"a\":1}", "group the room binary \"Bw==\""), ann.untilNow(), "what ann received");
            Check.equal(List.of("group the room text \"hi\"", "group the room json {\"a\":1}", "group the room text \"bo\""), bo.untilNow(), "what bo received");
            Check.equal(List.of(), cy.untilNow(), "what cy received");
        }
    }

    private static void sendToUser() throws Exception {
        String hub = "java_user";
        WebPubSubServiceClient s = service(hub);
        try (Wire phone = open(hub, user("ann").addGroup("phones")); Wire desk = open(hub, user("ann")); Wire bo = open(hub, user("bo"))) {
            s.sendToUser("ann", "hi", TEXT);
            s.sendToUserWithResponse("ann", BinaryData.fromString("{\"ring\":true}"), JSON, 13, with("filter", "'phones' in groups"));
            s.sendToUserWithResponse("ghost", BinaryData.fromString("lost"), with().setHeader(HttpHeaderName.CONTENT_TYPE, "text/plain"));
            Check.equal(List.of("server text \"hi\"", "server json {\"ring\":true}"), phone.untilNow(), "what the phone received");
            Check.equal(List.of("server text \"hi\""), desk.untilNow(), "what the desk received");
            Check.equal(List.of(), bo.untilNow(), "what bo received");
        }
    }

    private static void sendToConnection() throws Exception {
        String hub = "java_connection";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann")); Wire bo = open(hub, user("ann"))) {
            s.sendToConnection(ann.id, "hi", TEXT);
            s.sendToConnectionWithResponse(ann.id, bytes(9), BINARY, 1, null);
            s.sendToConnectionWithResponse("ghost", BinaryData.fromString("lost"), with().setHeader(HttpHeaderName.CONTENT_TYPE, "text/plain"));
            Check.equal(List.of("server text \"hi\"", "server binary \"CQ==\""), ann.untilNow(), "what ann received");
            Check.equal(List.of(), bo.untilNow(), "what bo received");
        }
    }

    /** Which of the wires are in the group: those that receive what is sent to it. */
    private static String members(String hub, String group, Wire... wires) throws Exception {
        service(hub).sendToGroup(group, "who is here?", TEXT);
        StringBuilder here = new StringBuilder();
        for (Wire w : wires) {
            here.append(w.untilNow().isEmpty() ? "-" : "+");
        }
        return here.toString();
    }

    private static void membershipByConnection() throws Exception {
        String hub = "java_join";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann")); Wire bo = open(hub, user("bo"))) {
            s.addConnectionToGroupWithResponse("room", ann.id, null);
            s.addConnectionToGroupWithResponse("room", bo.id, null);
            Check.equal("++", members(hub, "room", ann, bo), "members after joining");
            s.removeConnectionFromGroupWithResponse("room", ann.id, null);
            Check.equal("-+", members(hub, "room", ann, bo), "members after ann left");
            s.removeConnectionFromAllGroupsWithResponse(bo.id, null);
            Check.equal("--", members(hub, "room", ann, bo), "members after bo left all groups");
        }
        HttpResponseException e = Check.refused(404, () -> s.addConnectionToGroupWithResponse("room", "ghost", null));
        Check.equal("Error.Connection.NotExisted", e.getResponse().getHeaderValue(HttpHeaderName.fromString("x-ms-error-code")), "x-ms-error-code");
        s.removeConnectionFromGroupWithResponse("room", "ghost", null);
        s.removeConnectionFromAllGroupsWithResponse("ghost", null);
    }

    private static void membershipByUser() throws Exception {
        String hub = "java_joinuser";
        WebPubSubServiceClient s = service(hub);
        try (Wire phone = open(hub, user("ann b")); Wire desk = open(hub, user("ann b")); Wire bo = open(hub, user("bo"))) {
            s.addUserToGroupWithResponse("a", "ann b", null);
            s.addUserToGroupWithResponse("b", "ann b", null);
            s.addUserToGroupWithResponse("a", "bo", null);
            Check.equal("+++", members(hub, "a", phone, desk, bo), "members of a");
            s.removeUserFromGroupWithResponse("a", "ann b", null);
            Check.equal("--+", members(hub, "a", phone, desk, bo), "members of a after ann left");
            Check.equal("++-", members(hub, "b", phone, desk, bo), "members of b");
            s.removeUserFromAllGroupsWithResponse("ann b", null);
            Check.equal("---", members(hub, "b", phone, desk, bo), "members of b after ann left all groups");
        }
        Check.refused(404, () -> s.addUserToGroupWithResponse("a", "ghost", null));
        s.removeUserFromGroupWithResponse("a", "ghost", null);
    }

    private static void membershipByFilter() throws Exception {
        String hub = "java_filter";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann")); Wire bo = open(hub, user("bo")); Wire cy = open(hub, user("cy"))) {
            s.addConnectionsToGroups(List.of("a", "b"), "userId in ('ann','bo')");
            Check.equal("++-", members(hub, "a", ann, bo, cy), "members of a");
            Check.equal("++-", members(hub, "b", ann, bo, cy), "members of b");
        }
        Check.refused(400, () -> s.addConnectionsToGroups(List.of("a"), "userId lt 1"));
    }

    private static void existence() throws Exception {
        String hub = "java_exists";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann").addGroup("room"))) {
            Check.equal(true, s.connectionExistsWithResponse(ann.id, null).getValue(), "ann's connection exists");
            Check.equal(true, s.userExistsWithResponse("ann", null).getValue(), "ann exists");
            Check.equal(true, s.groupExistsWithResponse("room", null).getValue(), "the room exists");
            Check.equal(false, s.connectionExistsWithResponse("ghost", null).getValue(), "a ghost's connection exists");
            Check.equal(false, s.userExistsWithResponse("ghost", null).getValue(), "a ghost exists");
            Check.equal(false, s.groupExistsWithResponse("ghost", null).getValue(), "a ghost's group exists");
        }
    }

    private static void permissions() throws Exception {
        String hub = "java_permissions";
        WebPubSubServiceClient s = service(hub);
        RequestOptions room = with("targetName", "a room");
        String say = "{\"type\":\"sendToGroup\",\"group\":\"a room\",\"dataType\":\"text\",\"data\":\"hi\",\"ackId\":%d}";
        try (Wire ann = open(hub, user("ann"))) {
            for (WebPubSubPermission p : List.of(WebPubSubPermission.SEND_TO_GROUP, WebPubSubPermission.JOIN_LEAVE_GROUP)) {
                Check.equal(false, s.checkPermissionWithResponse(p, ann.id, room).getValue(), p + " before");
                s.grantPermissionWithResponse(p, ann.id, room);
                Check.equal(true, s.checkPermissionWithResponse(p, ann.id, room).getValue(), p + " granted");
            }
            ann.send(String.format(say, 1));
            Check.equal("{\"type\":\"ack\",\"ackId\":1,\"success\":true}", ann.read().toString(), "the ack of a permitted send");
            s.revokePermissionWithResponse(WebPubSubPermission.SEND_TO_GROUP, ann.id, room);
            Check.equal(false, s.checkPermissionWithResponse(WebPubSubPermission.SEND_TO_GROUP, ann.id, room).getValue(), "sendToGroup revoked");
            Check.equal(true, s.checkPermissionWithResponse(WebPubSubPermission.JOIN_LEAVE_GROUP, ann.id, room).getValue(), "joinLeaveGroup kept");
            ann.send(String.format(say, 2));
            Check.equal("Forbidden", ann.read().path("error").path("name").asText(), "the error of a revoked send");
        }
        Check.refused(404, () -> s.grantPermissionWithResponse(WebPubSubPermission.SEND_TO_GROUP, "ghost", room));
    }

    private static void told(Wire w, String reason) throws Exception {
        Check.equal("Application server closed the connection. Reason: " + reason, w.read().path("message").asText(), "the disconnected message");
        Check.equal("{\"closed\":1000,\"reason\":\"\"}", w.read().toString(), "the close frame");
    }

    private static void closeOne() throws Exception {
        String hub = "java_close";
        WebPubSubServiceClient s = service(hub);
        try (Wire ann = open(hub, user("ann")); Wire bo = open(hub, user("bo"))) {
            s.closeConnectionWithResponse(ann.id, with("reason", "bye & co"));
            told(ann, "bye & co");
            Check.equal(false, s.connectionExistsWithResponse(ann.id, null).getValue(), "ann's connection exists");
            Check.equal(List.of(), bo.untilNow(), "what bo received");
        }
        s.closeConnectionWithResponse("ghost", null);
    }

    private static void closeMany() throws Exception {
        String hub = "java_closemany";
        WebPubSubServiceClient s = service(hub);
        try (Wire kept = open(hub, user("ann").addGroup("room"))) {
            try (Wire one = open(hub, user("ann"))) {
                s.closeUserConnectionsWithResponse("ann", with("excluded", kept.id, "reason", "user"));
                told(one, "user");
            }
            try (Wire one = open(hub, user("bo").addGroup("room"))) {
                s.closeGroupConnectionsWithResponse("room", with("excluded", kept.id, "reason", "group"));
                told(one, "group");
            }
            try (Wire one = open(hub, user("cy"))) {
                s.closeAllConnectionsWithResponse(with("excluded", kept.id, "reason", "hub"));
                told(one, "hub");
            }
            Check.equal(List.of(), kept.untilNow(), "what the excluded connection received");
        }
    }

    private static void tokens() throws Exception {
        String hub = "java_tokens";
        GetClientAccessTokenOptions token = user("ann@example.com").addRole("webpubsub.sendToGroup.room").setGroups(List.of("room", "hall")).setExpiresAfter(Duration.ofMinutes(5));
        try (Wire ann = open(hub, token); Wire nobody = open(hub, new GetClientAccessTokenOptions())) {
            Check.equal("ann@example.com", ann.user, "ann's user id");
            Check.equal("", nobody.user, "the user id of a client without one");
            ann.send("{\"type\":\"sendToGroup\",\"group\":\"room\",\"dataType\":\"text\",\"data\":\"to the room\"}");
            Check.equal("to the room", ann.read().path("data").asText(), "what ann told the room");
            service(hub).sendToGroup("hall", "to the hall", TEXT);
            Check.equal(List.of("group hall text \"to the hall\""), ann.untilNow(), "what ann received");
        }
    }

    private static void keys() throws Exception {
        String hub = "java_keys";
        WebPubSubServiceClientBuilder builder = new WebPubSubServiceClientBuilder().endpoint(System.getenv("FANFARE_ENDPOINT")).hub(hub);
        try (Wire ann = open(hub, user("ann"))) {
            builder.credential(new AzureKeyCredential(System.getenv("FANFARE_KEY"))).buildClient().sendToUser("ann", "hi", TEXT);
            WebPubSubServiceClient wrong = builder.credential(new AzureKeyCredential("no".repeat(20))).buildClient();
            Check.refused(401, () -> wrong.sendToUser("ann", "no", TEXT));
            Check.equal(List.of("server text \"hi\""), ann.untilNow(), "what ann received");
        }
    }
}
