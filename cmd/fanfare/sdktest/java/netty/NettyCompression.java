import java.net.URI;
import java.util.Base64;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelPromise;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.websocketx.TextWebSocketFrame;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolConfig;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolHandler;
import io.netty.handler.codec.http.websocketx.extensions.compression.WebSocketClientCompressionHandler;

/**
 * Netty's WebSocket client with compression, as azure-messaging-webpubsub-client sets it up. It refuses a response that
 * names a parameter of permessage-deflate which it did not offer. It keeps its window from one message to the next.
 */
public final class NettyCompression {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String OFFER = "permessage-deflate;client_max_window_bits";

    private final BlockingQueue<Object> inbox = new LinkedBlockingQueue<>(); // text, or what went wrong
    private final AtomicLong sent = new AtomicLong();
    private final AtomicLong received = new AtomicLong();
    private volatile String offered;
    private Channel channel;

    public static void main(String[] args) throws Exception {
        NioEventLoopGroup loop = new NioEventLoopGroup(1);
        try {
            new NettyCompression().run(loop);
            System.out.println("all is well");
        } catch (Exception | AssertionError e) {
            e.printStackTrace(System.out);
            System.exit(1);
        } finally {
            loop.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        }
    }

    private void run(NioEventLoopGroup loop) throws Exception {
        connect(loop);
        check(read().path("event").asText().equals("connected"), "the first message is not that it is connected");
        check(offered != null && offered.contains(OFFER), "the client offered " + offered + ", expected " + OFFER);
        send("joinGroup");
        check(read().path("success").asBoolean(), "joinGroup failed");

        byte[] random = new byte[3000];
        new Random(1).nextBytes(random);
        String text = Base64.getEncoder().encodeToString(random); // 4,000 characters
        for (int i = 0; i < 10; i++) {
            // The first has nothing to refer to, the others have nothing else that is new.
            long before = sent.get();
            send("sendToGroup", text + i);
            check(read().path("data").asText().equals(text + i), "message " + i + " is not what was sent");
            long bytes = sent.get() - before;
            check(i == 0 ? bytes > 2000 : bytes < 1000, "message " + i + " took " + bytes + " bytes");
        }
        for (int i = 0; i < 10; i++) {
            long before = received.get();
            String same = (i + "abc").repeat(1000);
            send("sendToGroup", same);
            check(read().path("data").asText().equals(same), "repetition " + i + " is not what was sent");
            long bytes = received.get() - before;
            check(bytes < 1000, "repetition " + i + " came back in " + bytes + " bytes");
        }
        channel.close().sync();
    }

    private void connect(NioEventLoopGroup loop) throws Exception {
        URI uri = URI.create(new WebPubSubServiceClientBuilder().connectionString(System.getenv("FANFARE_CONNECTION_STRING"))
            .hub("chat").buildClient()
            .getClientAccessToken(new GetClientAccessTokenOptions().addRole("webpubsub.joinLeaveGroup").addRole("webpubsub.sendToGroup")).getUrl());
        WebSocketClientProtocolConfig config = WebSocketClientProtocolConfig.newBuilder().webSocketUri(uri)
            .subprotocol("json.webpubsub.azure.v1").allowExtensions(true).maxFramePayloadLength(1 << 20).build();
        WebSocketClientProtocolHandler handler = new WebSocketClientProtocolHandler(config);
        channel = new Bootstrap().group(loop).channel(NioSocketChannel.class).handler(new ChannelInitializer<SocketChannel>() {
            @Override
            protected void initChannel(SocketChannel c) {
                c.pipeline().addLast(new Meter(), new HttpClientCodec(), new HttpObjectAggregator(8192), new Offer(),
                    WebSocketClientCompressionHandler.INSTANCE, handler, new Inbox());
            }
        }).connect(uri.getHost(), uri.getPort()).sync().channel();
    }

    private void send(String type, String... data) throws Exception {
        ObjectNode m = JSON.createObjectNode().put("type", type).put("group", "g");
        if (data.length == 0) {
            m.put("ackId", 1);
        } else {
            m.put("dataType", "text").put("data", data[0]);
        }
        channel.writeAndFlush(new TextWebSocketFrame(m.toString())).sync();
    }

    private JsonNode read() throws Exception {
        Object got = inbox.poll(60, TimeUnit.SECONDS);
        if (got instanceof String) {
            return JSON.readTree((String) got);
        }
        throw new AssertionError("the connection failed: " + got, got instanceof Throwable ? (Throwable) got : null);
    }

    private static void check(boolean ok, String what) {
        if (!ok) {
            throw new AssertionError(what);
        }
    }

    /** Counts what travels. */
    private final class Meter extends ChannelDuplexHandler {
        @Override
        public void channelRead(ChannelHandlerContext ctx, Object m) {
            received.addAndGet(((ByteBuf) m).readableBytes());
            ctx.fireChannelRead(m);
        }

        @Override
        public void write(ChannelHandlerContext ctx, Object m, ChannelPromise done) {
            sent.addAndGet(((ByteBuf) m).readableBytes());
            ctx.write(m, done);
        }
    }

    /** Notes what the handshake offers. */
    private final class Offer extends ChannelDuplexHandler {
        @Override
        public void write(ChannelHandlerContext ctx, Object m, ChannelPromise done) {
            if (m instanceof HttpRequest) {
                offered = ((HttpRequest) m).headers().get("Sec-WebSocket-Extensions");
            }
            ctx.write(m, done);
        }
    }

    private final class Inbox extends SimpleChannelInboundHandler<TextWebSocketFrame> {
        @Override
        protected void channelRead0(ChannelHandlerContext ctx, TextWebSocketFrame m) {
            inbox.add(m.text());
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext ctx, Throwable e) {
            inbox.add(e);
            ctx.close();
        }

        @Override
        public void channelInactive(ChannelHandlerContext ctx) {
            inbox.add(new AssertionError("closed"));
        }
    }
}
