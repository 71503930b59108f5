package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	pb "qila.dev/examples/console/gatewayv1"
)

const chunkBytes = 64 << 10

// Directories that are made from the others.
var leftOut = []string{".git", ".venv", "node_modules", "__pycache__"}

// upload writes a file, or the files of a directory, into the workspace. It answers the file to run: of a directory
// none, so that Qila finds the program.
func upload(ctx context.Context, gateway pb.GatewayServiceClient, sandbox, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		name := filepath.Base(path)
		return name, writeFile(ctx, gateway, sandbox, path, name)
	}
	return "", filepath.WalkDir(path, func(local string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(leftOut, entry.Name()):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(path, local)
		if err != nil {
			return err
		}
		return writeFile(ctx, gateway, sandbox, local, filepath.ToSlash(name))
	})
}

// writeFile sends the header, the bytes and the end, without which nothing is written.
func writeFile(ctx context.Context, gateway pb.GatewayServiceClient, sandbox, local, name string) error {
	file, err := os.Open(local)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	// A file that cannot be read to its end is not sent: the stream is broken off.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := gateway.WriteFile(ctx)
	if err != nil {
		return err
	}
	header := &pb.WriteFileHeader{SandboxId: sandbox, Path: name, Executable: info.Mode()&0o100 != 0}
	err = stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_Header{Header: header}})
	hash := sha256.New()
	buffer := make([]byte, chunkBytes)
	for err == nil {
		var count int
		count, err = io.TeeReader(file, hash).Read(buffer)
		if err == io.EOF {
			end := &pb.WriteFileEnd{Sha256: hex.EncodeToString(hash.Sum(nil))}
			stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_End{End: end}})
			break
		}
		if err != nil {
			return err
		}
		err = stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_Chunk{Chunk: buffer[:count]}})
	}
	// Why a Send failed is told here.
	_, err = stream.CloseAndRecv()
	return err
}
