package dev.qila.examples;

import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.Message;
import dev.qila.gateway.v1.AttachExecRequest;
import dev.qila.gateway.v1.AttachExecResponse;
import dev.qila.gateway.v1.CancelExecRequest;
import dev.qila.gateway.v1.CancelExecResponse;
import dev.qila.gateway.v1.CreateSandboxRequest;
import dev.qila.gateway.v1.CreateSandboxResponse;
import dev.qila.gateway.v1.ExecRequest;
import dev.qila.gateway.v1.ExecResponse;
import dev.qila.gateway.v1.Gateway;
import dev.qila.gateway.v1.RemoveSandboxRequest;
import dev.qila.gateway.v1.RemoveSandboxResponse;
import dev.qila.gateway.v1.SignalExecRequest;
import dev.qila.gateway.v1.SignalExecResponse;
import dev.qila.gateway.v1.WriteFileRequest;
import dev.qila.gateway.v1.WriteFileResponse;
import dev.qila.gateway.v1.WriteStdinRequest;
import dev.qila.gateway.v1.WriteStdinResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.StatusException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.ClientCalls;
import java.util.concurrent.TimeUnit;

/**
 * The gateway's calls that the console makes, from the description of the service that protoc generated.
 *
 * <p>It stands in the place of a stub of protoc-gen-grpc-java, a native program for some platforms: this needs protoc
 * alone.
 */
final class GatewayCalls {
    private static final ServiceDescriptor SERVICE = Gateway.getDescriptor().findServiceByName("GatewayService");
    private static final long CALL_SECONDS = 120;
    private static final long UPLOAD_SECONDS = 900;

    private static final MethodDescriptor<CreateSandboxRequest, CreateSandboxResponse> CREATE_SANDBOX = method(
            "CreateSandbox", CreateSandboxRequest.getDefaultInstance(), CreateSandboxResponse.getDefaultInstance());
    private static final MethodDescriptor<RemoveSandboxRequest, RemoveSandboxResponse> REMOVE_SANDBOX = method(
            "RemoveSandbox", RemoveSandboxRequest.getDefaultInstance(), RemoveSandboxResponse.getDefaultInstance());
    private static final MethodDescriptor<WriteFileRequest, WriteFileResponse> WRITE_FILE =
            method("WriteFile", WriteFileRequest.getDefaultInstance(), WriteFileResponse.getDefaultInstance());
    private static final MethodDescriptor<ExecRequest, ExecResponse> EXEC =
            method("Exec", ExecRequest.getDefaultInstance(), ExecResponse.getDefaultInstance());
    private static final MethodDescriptor<AttachExecRequest, AttachExecResponse> ATTACH_EXEC =
            method("AttachExec", AttachExecRequest.getDefaultInstance(), AttachExecResponse.getDefaultInstance());
    private static final MethodDescriptor<WriteStdinRequest, WriteStdinResponse> WRITE_STDIN =
            method("WriteStdin", WriteStdinRequest.getDefaultInstance(), WriteStdinResponse.getDefaultInstance());
    private static final MethodDescriptor<SignalExecRequest, SignalExecResponse> SIGNAL_EXEC =
            method("SignalExec", SignalExecRequest.getDefaultInstance(), SignalExecResponse.getDefaultInstance());
    private static final MethodDescriptor<CancelExecRequest, CancelExecResponse> CANCEL_EXEC =
            method("CancelExec", CancelExecRequest.getDefaultInstance(), CancelExecResponse.getDefaultInstance());

    private final Channel channel;

    GatewayCalls(Channel channel) {
        this.channel = channel;
    }

    CreateSandboxResponse createSandbox(CreateSandboxRequest request) throws StatusException, InterruptedException {
        return ClientCalls.blockingV2UnaryCall(channel, CREATE_SANDBOX, within(CALL_SECONDS), request);
    }

    void removeSandbox(RemoveSandboxRequest request) throws StatusException, InterruptedException {
        ClientCalls.blockingV2UnaryCall(channel, REMOVE_SANDBOX, within(CALL_SECONDS), request);
    }

    BlockingClientCall<WriteFileRequest, WriteFileResponse> writeFile() {
        return ClientCalls.blockingClientStreamingCall(channel, WRITE_FILE, within(UPLOAD_SECONDS));
    }

    /** For an exec that is started detached: then the answer comes at once. */
    BlockingClientCall<?, ExecResponse> exec(ExecRequest request) {
        return ClientCalls.blockingV2ServerStreamingCall(channel, EXEC, within(CALL_SECONDS), request);
    }

    BlockingClientCall<?, AttachExecResponse> attachExec(AttachExecRequest request) {
        return ClientCalls.blockingV2ServerStreamingCall(channel, ATTACH_EXEC, CallOptions.DEFAULT, request);
    }

    BlockingClientCall<WriteStdinRequest, WriteStdinResponse> writeStdin() {
        return ClientCalls.blockingBidiStreamingCall(channel, WRITE_STDIN, CallOptions.DEFAULT);
    }

    void signalExec(SignalExecRequest request) throws StatusException, InterruptedException {
        ClientCalls.blockingV2UnaryCall(channel, SIGNAL_EXEC, within(CALL_SECONDS), request);
    }

    void cancelExec(CancelExecRequest request) throws StatusException, InterruptedException {
        ClientCalls.blockingV2UnaryCall(channel, CANCEL_EXEC, within(CALL_SECONDS), request);
    }

    private static CallOptions within(long seconds) {
        return CallOptions.DEFAULT.withDeadlineAfter(seconds, TimeUnit.SECONDS);
    }

    private static <Q extends Message, R extends Message> MethodDescriptor<Q, R> method(
            String name, Q request, R response) {
        var described = SERVICE.findMethodByName(name);
        MethodType type = described.isClientStreaming()
                ? described.isServerStreaming() ? MethodType.BIDI_STREAMING : MethodType.CLIENT_STREAMING
                : described.isServerStreaming() ? MethodType.SERVER_STREAMING : MethodType.UNARY;
        return MethodDescriptor.newBuilder(ProtoUtils.marshaller(request), ProtoUtils.marshaller(response))
                .setType(type)
                .setFullMethodName(MethodDescriptor.generateFullMethodName(SERVICE.getFullName(), name))
                .build();
    }
}
