package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

func square(ctx context.Context, n int) (int, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(time.Millisecond):
	}
	return n * n, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var running, most, sum atomic.Int64
	limit := semaphore.NewWeighted(4)
	group, ctx := errgroup.WithContext(ctx)
	for n := range 50 {
		group.Go(func() error {
			if err := limit.Acquire(ctx, 1); err != nil {
				return err
			}
			defer limit.Release(1)
			now := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			result, err := square(ctx, n)
			sum.Add(int64(result))
			return err
		})
	}
	err := group.Wait()
	fmt.Println("sum", sum.Load(), "at most four:", most.Load() <= 4, "error:", err)
	fmt.Println(errors.Is(context.Canceled, context.Canceled))
}
