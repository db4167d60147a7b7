package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
)

const (
	firstWait = 100 * time.Millisecond // before the first retry; doubled each time
	maxWait   = 60 * time.Second       // also for what a server asks for
)

// retrier is an http.RoundTripper that tries again what may be tried again: requests without a body or with one that
// can be rewound, answered by 408, 429 or 5xx, or not at all. It obeys Retry-After, also for requests that only their
// sender can repeat: then the next request to that host waits.
type retrier struct {
	next    http.RoundTripper
	retries int
	log     *slog.Logger
	plain   bool // plain HTTP is allowed

	mu        sync.Mutex
	notBefore map[string]time.Time // by host
}

func newRetrier(next http.RoundTripper, opts Options, plain bool) *retrier {
	return &retrier{next: next, retries: opts.retries(), log: opts.log(), plain: plain, notBefore: map[string]time.Time{}}
}

func (o Options) retries() int {
	switch {
	case o.Retries < 0:
		return 0
	case o.Retries == 0:
		return 5
	}
	return o.Retries
}

func (o Options) stall() time.Duration {
	if o.Stall > 0 {
		return o.Stall
	}
	return time.Minute
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !r.plain {
		// A token server or redirect without TLS would get credentials or send bytes in the clear.
		return nil, abi.Errorf(abi.ErrDenied, "the registry leads to %s without TLS, which was not allowed", req.URL.Host)
	}
	rewindable := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	for attempt := 0; ; attempt++ {
		if err := r.waitTurn(req.Context(), req.URL.Host); err != nil {
			return nil, err
		}
		resp, err := r.next.RoundTrip(req)
		again := err != nil && req.Context().Err() == nil || err == nil && retryable(resp.StatusCode)
		if !again {
			return resp, err
		}
		wait, asked := backoff(attempt), false
		if err == nil {
			wait, asked = retryAfter(resp, wait)
		}
		if !rewindable || attempt >= r.retries {
			if asked {
				r.hold(req.URL.Host, wait)
			}
			return resp, err
		}
		status := 0
		if resp != nil {
			status = resp.StatusCode
			io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // lets the connection be used again
			resp.Body.Close()
		}
		r.log.Info("request failed, trying again", "method", req.Method, "host", req.URL.Host, "path", req.URL.Path,
			"status", status, "error", err, "wait", wait)
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req, err = rewind(req); err != nil {
			return nil, err
		}
	}
}

// rewind gives a request that may be sent again: a used one may not be touched any more.
func rewind(req *http.Request) (*http.Request, error) {
	next := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		next.Body = body
	}
	return next, nil
}

func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func backoff(attempt int) time.Duration { return min(firstWait<<min(attempt, 16), maxWait) }

// retryAfter returns what the server asks for, in seconds or as a date, and whether it did.
func retryAfter(resp *http.Response, otherwise time.Duration) (time.Duration, bool) {
	h := resp.Header.Get("Retry-After")
	if s, err := strconv.ParseUint(h, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, maxWait), true
	}
	if at, err := http.ParseTime(h); err == nil {
		return min(max(time.Until(at), 0), maxWait), true
	}
	return otherwise, false
}

func (r *retrier) hold(host string, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := time.Now().Add(wait); at.After(r.notBefore[host]) {
		r.notBefore[host] = at
	}
}

func (r *retrier) waitTurn(ctx context.Context, host string) error {
	r.mu.Lock()
	wait := time.Until(r.notBefore[host])
	r.mu.Unlock()
	return sleep(ctx, wait)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// again runs do until it succeeds, fails for good, or the retries are used up.
func again(ctx context.Context, opts Options, what string, final func(error) bool, do func(attempt int) error) error {
	for attempt := 0; ; attempt++ {
		err := do(attempt)
		if err == nil || attempt >= opts.retries() || final(err) || ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return err
		}
		opts.log().Info("transfer failed, trying again", "what", what, "error", err)
		if err := sleep(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}
