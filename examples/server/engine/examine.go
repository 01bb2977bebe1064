package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// Report is what an engine says about itself.
type Report struct {
	Name     string // such as "Valkey"
	Version  string // such as "8.0.1"
	Policy   string // maxmemory-policy
	Replicas int    // that are connected
	Durable  bool   // it has an append-only file

	// Warnings are the settings with which the server works, but not as it
	// should. Each says what to do.
	Warnings []string
}

// String returns the report in one line, without the warnings.
func (r Report) String() string {
	durable := "no append-only file"
	if r.Durable {
		durable = "an append-only file"
	}
	return fmt.Sprintf("%s %s, %s, %s, replicas: %d", r.Name, r.Version, r.Policy, durable, r.Replicas)
}

// ErrRefused is wrapped by the error of [Engine.Examine] if the engine answers,
// and does not let its user in.
var ErrRefused = errors.New("the engine refuses the user of REDIS_URL, or a command of it: look at the password, and at the user's rules in the engine")

// Examine asks the engine for its version and its settings.
func (e *Engine) Examine(ctx context.Context) (Report, error) {
	text, err := e.info(ctx)
	if answer, ok := rueidis.IsRedisErr(err); ok {
		for _, code := range []string{"WRONGPASS", "NOAUTH", "NOPERM"} {
			if strings.HasPrefix(answer.Error(), code) {
				return Report{}, fmt.Errorf("%w (%w)", ErrRefused, answer)
			}
		}
	}
	if err != nil {
		return Report{}, err
	}
	return report(text, e.cfg.Replicas)
}

func (e *Engine) info(ctx context.Context) (string, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return "", err
	}
	// In a cluster, a connection is to the node that has the key of its first
	// command. Without one, any node might answer, also a replica.
	conn, release := client.Dedicate()
	defer release()
	replies := conn.DoMulti(ctx, conn.B().Get().Key(e.rootName()).Build(), conn.B().Info().Build())
	if err := replies[0].Error(); err != nil && !rueidis.IsRedisNil(err) {
		return "", err
	}
	return replies[1].ToString()
}

var errInfo = errors.New("the engine's answer to INFO is not that of Redis or Valkey")

// report reads the answer to INFO.
func report(info string, replicas int) (Report, error) {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	r := Report{Name: "Redis", Version: fields["redis_version"], Policy: fields["maxmemory_policy"], Durable: fields["aof_enabled"] == "1"}
	least := "7.0"
	if v := fields["valkey_version"]; v != "" {
		r.Name, r.Version, least = "Valkey", v, "7.2"
	}
	if r.Version == "" || r.Policy == "" {
		return r, errInfo
	}
	r.Replicas, _ = strconv.Atoi(fields["connected_slaves"])
	warn := func(bad bool, format string, args ...any) {
		if bad {
			r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
		}
	}
	warn(older(r.Version, least), "%s %s is too old: install %s or later", r.Name, r.Version, least)
	warn(r.Policy != "noeviction", "maxmemory-policy is %s, so the engine may delete the history when its memory is full: set noeviction", r.Policy)
	warn(r.Replicas < replicas, "the engine has fewer replicas (%d) than REDIS_REPLICAS (%d), so no erasure will be reported as done", r.Replicas, replicas)
	warn(fields["role"] == "slave", "the engine is a replica, and takes no messages: name the master or the Sentinels in REDIS_URL")
	return r, nil
}

// older reports whether a version is below another, by their first two numbers.
func older(version, least string) bool {
	a, b := numbers(version), numbers(least)
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

func numbers(version string) (n [2]int) {
	for i, part := range strings.SplitN(version, ".", 3)[:min(2, strings.Count(version, ".")+1)] {
		n[i], _ = strconv.Atoi(part)
	}
	return n
}
