package publish

import (
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/shirou/gopsutil/v4/mem"
)

// Memory returns the memory figures of this machine, or nil if they are
// unknown.
func Memory() *wire.Memory {
	v, err := mem.VirtualMemory()
	if err != nil || v.Total == 0 {
		return nil
	}
	const mb = 1 << 20
	return &wire.Memory{
		AvailableMB: round(float64(v.Available) / mb),
		PercentUsed: round(v.UsedPercent),
		TotalMB:     round(float64(v.Total) / mb),
	}
}

// The simulated memory.
const (
	pretendedTotal = 1024 // its size in MB
	pretendedStart = 0.2  // the used share when a life begins
)

// Pretended returns the figures of a simulated memory after said bytes of text.
// The memory is full after full bytes. It is for a machine whose memory never
// fills.
func Pretended(said, full int64) *wire.Memory {
	used := min(1, pretendedStart+(1-pretendedStart)*float64(said)/float64(full))
	return &wire.Memory{AvailableMB: round(pretendedTotal * (1 - used)), PercentUsed: round(100 * used), TotalMB: pretendedTotal}
}

func round(f float64) float64 { return float64(int64(f*10+0.5)) / 10 }

// Mark is the used memory at which a life ends. If more is used when a life
// begins, the use must first fall below the mark; otherwise the device would
// restart all the time.
type Mark struct {
	Percent float64 // 0 means that memory never ends a life

	below bool // in this life, the use was below the mark
}

// Begin begins a life.
func (m *Mark) Begin() { m.below = false }

// Passed reports whether figures, which may be nil, end the life.
func (m *Mark) Passed(figures *wire.Memory) bool {
	switch {
	case m.Percent <= 0 || figures == nil:
		return false
	case figures.PercentUsed < m.Percent:
		m.below = true
		return false
	}
	return m.below
}
