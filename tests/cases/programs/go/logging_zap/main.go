package main

import (
	"log/slog"
	"os"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func main() {
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder})
	logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(os.Stdout), zapcore.InfoLevel))
	logger.Info("from zap", zap.Int("count", 3))
	zero := zerolog.New(os.Stdout)
	zero.Warn().Str("who", "zerolog").Msg("careful")
	entry := logrus.New()
	entry.SetOutput(os.Stdout)
	entry.SetFormatter(&logrus.JSONFormatter{DisableTimestamp: true})
	entry.WithField("n", 1).Error("from logrus")
	slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})).Info("from slog", "ok", true)
}
