package dev.qila.examples;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;

/** What a failed call says. */
final class Failures {
    private Failures() {}

    /** What programs decide by; empty if Qila did not say it. */
    static String reason(StatusException failure) {
        try {
            for (Any detail : StatusProto.fromThrowable(failure).getDetailsList()) {
                if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals("qila")) {
                    return detail.unpack(ErrorInfo.class).getReason();
                }
            }
        } catch (InvalidProtocolBufferException nonsense) {
            // A peer that writes nonsense is reported by its bare code.
        }
        return "";
    }

    /**
     * Whether a call may go well later: every refusal of Qila's carries ErrorInfo, so what has none was said by the
     * connection, and UNAVAILABLE is a service that does not answer.
     */
    static boolean isLost(StatusException failure) {
        return failure.getStatus().getCode() == Status.Code.UNAVAILABLE || reason(failure).isEmpty();
    }
}
