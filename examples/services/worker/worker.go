package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/examples/services/worker/config"
)

type worker struct {
	cfg    config.Config
	log    *slog.Logger
	client *http.Client
	limit  *rate.Limiter
	done   atomic.Int64
}

func newWorker(cfg config.Config, log *slog.Logger) (*worker, error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{}}
	if u := cfg.Proxy.Reveal(); u != nil {
		t.Proxy = http.ProxyURL(u)
	}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("CA_FILE holds no certificate")
		}
	}
	if cfg.Cert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.CertKey)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	// A redirect could carry the secrets of a request to another server.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w := &worker{
		cfg: cfg, log: log, limit: rate.NewLimiter(rate.Inf, 1),
		client: &http.Client{Transport: t, Timeout: cfg.JobTimeout, CheckRedirect: stay},
	}
	if cfg.Rate != nil {
		w.limit.SetLimit(rate.Limit(*cfg.Rate))
	}
	return w, nil
}

// run works until ctx ends. Then open jobs have StopTimeout to finish.
func (w *worker) run(ctx context.Context) error {
	if w.cfg.HealthAddr != "" {
		listener, err := net.Listen("tcp", w.cfg.HealthAddr)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: http.HandlerFunc(w.health), ReadHeaderTimeout: 5 * time.Second}
		go server.Serve(listener) // ends with Close
		defer server.Close()
	}
	jobs, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(w.cfg.StopTimeout, cancel) })()
	w.log.Info("working", "queue", w.cfg.Queue.Host, "workers", w.cfg.Workers)
	var all sync.WaitGroup
	for range w.cfg.Workers {
		all.Go(func() {
			for w.limit.Wait(ctx) == nil {
				more, err := w.next(jobs)
				if err != nil {
					w.log.Error("a job failed", "error", err)
				}
				if !more {
					pause(ctx, w.cfg.Poll)
				}
			}
		})
	}
	all.Wait()
	w.log.Info("stopped", "done", w.done.Load())
	return nil
}

// next does one job. It returns whether there may be more.
func (w *worker) next(ctx context.Context) (more bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.cfg.Queue.String(), nil)
	if err != nil {
		return false, err
	}
	if w.cfg.User != "" {
		r.SetBasicAuth(w.cfg.User, w.cfg.Password.Reveal())
	} else {
		r.Header.Set("Authorization", "Bearer "+w.cfg.Token.Reveal())
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode == http.StatusNoContent {
			return false, nil
		}
		return false, fmt.Errorf("the queue answered %s", resp.Status)
	}
	job, err := io.ReadAll(io.LimitReader(resp.Body, w.cfg.MaxBytes+1))
	id, kind := resp.Header.Get("Job-Id"), resp.Header.Get("Job-Kind")
	made, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	switch {
	case err != nil:
		return true, err
	case int64(len(job)) > w.cfg.MaxBytes:
		return true, fmt.Errorf("job %q has more than %d bytes", id, w.cfg.MaxBytes)
	case !slices.Contains(w.cfg.Kinds, kind):
		return true, fmt.Errorf("job %q is of the kind %q", id, kind)
	case w.cfg.Since != nil && made.Before(*w.cfg.Since):
		return true, nil
	}
	return true, w.post(ctx, id, result(kind, job))
}

func result(kind string, job []byte) []byte {
	switch kind {
	case "upper":
		return bytes.ToUpper(job)
	case "sha256":
		sum := sha256.Sum256(job)
		return []byte(hex.EncodeToString(sum[:]))
	}
	return []byte(strconv.Itoa(len(bytes.Fields(job)))) // count
}

// post sends a signed result, again and again until it is accepted.
func (w *worker) post(ctx context.Context, id string, body []byte) (err error) {
	mac := hmac.New(sha256.New, w.cfg.SigningKey.Reveal())
	mac.Write([]byte(id + "\n"))
	mac.Write(body)
	wait := w.cfg.First
	for attempt := range w.cfg.Attempts {
		if attempt > 0 {
			pause(ctx, wait-time.Duration(rand.Float64()*w.cfg.Jitter*float64(wait)))
			wait = min(time.Duration(float64(wait)*w.cfg.Factor), w.cfg.Max)
		}
		if w.cfg.DryRun {
			w.log.Info("result", "job", id, "bytes", len(body))
			break
		}
		var r *http.Request
		if r, err = http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.Result.String(), bytes.NewReader(body)); err != nil {
			return err
		}
		for name, value := range w.cfg.Labels {
			r.Header.Set("Label-"+name, value)
		}
		r.Header.Set("Job-Id", id)
		r.Header.Set("Signature", hex.EncodeToString(mac.Sum(nil)))
		var resp *http.Response
		if resp, err = w.client.Do(r); err != nil {
			continue
		}
		resp.Body.Close()
		if err = nil; resp.StatusCode < 300 {
			break
		}
		err = fmt.Errorf("the result of job %q was answered with %s", id, resp.Status)
	}
	if err == nil {
		w.done.Add(1)
	}
	return err
}

// health answers those in HEALTH_NETWORKS.
func (w *worker) health(rw http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !slices.ContainsFunc(w.cfg.HealthNetworks, func(p netip.Prefix) bool { return p.Contains(from.Addr().Unmap()) }) {
		http.Error(rw, "forbidden", http.StatusForbidden)
		return
	}
	fmt.Fprintf(rw, "ok, %d jobs done\n", w.done.Load())
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
