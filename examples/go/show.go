package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "qila.dev/examples/console/gatewayv1"
)

// show prints one event: what the program wrote as its bytes, everything else as a line on stderr.
func show(event *pb.ExecEvent) error {
	switch {
	case event.GetOutput().GetPhase() == pb.Phase_PHASE_RUN:
		target := os.Stdout
		if event.GetOutput().GetStream() == pb.Stream_STREAM_STDERR {
			target = os.Stderr
		}
		_, err := target.Write(event.GetOutput().GetData())
		return err
	case event.GetPhaseStarted() != nil:
		say("%s", name(event.GetPhaseStarted().GetPhase(), "PHASE_"))
	case event.GetStage() != nil:
		stage := event.GetStage()
		say("  %s %d/%d", strings.ToLower(name(stage.GetStage(), "INSTALL_STAGE_")), stage.GetDone(), stage.GetTotal())
	case event.GetPackage() != nil:
		item := event.GetPackage()
		say("  %s %s %s", strings.ToLower(name(item.GetAction(), "PACKAGE_ACTION_")), item.GetName(), item.GetVersion())
	case event.GetNotice() != nil:
		say("  %s", event.GetNotice().GetMessage())
	}
	return nil
}

// showEnd answers the exit code that tells how an exec ended, and prints the end if it was not the program's own exit.
func showEnd(ended *pb.ExecEnded) int {
	switch end := ended.GetEnd().(type) {
	case *pb.ExecEnded_Exited:
		return int(end.Exited)
	case *pb.ExecEnded_Signaled:
		say("console: killed by signal %d", end.Signaled)
		return 128 + int(end.Signaled)
	case *pb.ExecEnded_TimedOut:
		say("console: timed out in %s", name(end.TimedOut.GetPhase(), "PHASE_"))
		return 124
	case *pb.ExecEnded_OomKilled:
		say("console: out of memory")
		return 137
	case *pb.ExecEnded_Cancelled:
		say("console: cancelled")
		return 130
	case *pb.ExecEnded_InstallFailed:
		failed := end.InstallFailed
		say("console: install failed: %s", name(failed.GetReason(), "INSTALL_FAILURE_REASON_"))
		say("%s", strings.Join(append([]string{failed.GetDetail()}, failed.GetHints()...), "\n"))
	case *pb.ExecEnded_PlanFailed:
		say("console: %s: %s", end.PlanFailed.GetReason(), end.PlanFailed.GetDetail())
	case *pb.ExecEnded_StartFailed:
		say("console: cannot start: %s %s", end.StartFailed.GetError(), end.StartFailed.GetDetail())
		if end.StartFailed.GetError() == "ENOENT" {
			return 127
		}
		return 126
	default:
		say("console: %v", ended)
	}
	return qilaFailed
}

// report prints a failure: of a call its reason, and the message, which says what to do.
func report(err error) {
	failure, isStatus := status.FromError(err)
	switch {
	case isStatus && infoOf(failure) != nil:
		say("console: %s: %s", infoOf(failure).GetReason(), failure.Message())
	case failure.Code() == codes.Canceled || errors.Is(err, context.Canceled):
		say("console: interrupted")
	case isStatus:
		say("console: %s: %s; see that the gateway runs at this address", failure.Code(), failure.Message())
	default:
		say("console: %v", err)
	}
}

// reportUnlessEnded leaves out that the program was gone before the call could reach it, or before it was answered.
func reportUnlessEnded(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && reasonOf(err) != "EXEC_ENDED" {
		report(err)
	}
}

// reasonOf is what programs decide by; empty if Qila did not say it.
func reasonOf(err error) string {
	return infoOf(status.Convert(err)).GetReason()
}

// isLost says whether a call may go well later: every refusal of Qila's carries ErrorInfo, so what has none was said by
// the connection, and UNAVAILABLE is a service that does not answer.
func isLost(err error) bool {
	if err == nil || errors.Is(err, io.EOF) {
		// A stream that ended too early.
		return err != nil
	}
	failure, isStatus := status.FromError(err)
	return isStatus && (failure.Code() == codes.Unavailable || infoOf(failure) == nil)
}

func infoOf(failure *status.Status) *errdetails.ErrorInfo {
	for _, detail := range failure.Details() {
		if info, isInfo := detail.(*errdetails.ErrorInfo); isInfo && info.GetDomain() == "qila" {
			return info
		}
	}
	return nil
}

// name is an enum's word without its prefix.
func name(value fmt.Stringer, prefix string) string {
	return strings.TrimPrefix(value.String(), prefix)
}

// say prints a line without control characters: what a stranger wrote must not steer the terminal.
func say(format string, values ...any) {
	fmt.Fprintln(os.Stderr, strings.TrimRight(strings.Map(printable, fmt.Sprintf(format, values...)), " \n"))
}

func printable(character rune) rune {
	if unicode.IsPrint(character) || character == '\n' {
		return character
	}
	return unicode.ReplacementChar
}
