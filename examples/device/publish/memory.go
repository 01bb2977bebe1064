package publish

import (
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/shirou/gopsutil/v4/mem"
)

// Memory returns the machine's figures, or nil where the system does not tell.
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

// What a pretended memory holds, in MB, and how full it is when a life begins.
const (
	pretendedTotal = 1024
	pretendedStart = 0.2
)

// Pretended returns the figures of a memory that so many bytes of text fill, after
// some were said. It is for machines whose own never fills.
func Pretended(said, full int64) *wire.Memory {
	used := min(1, pretendedStart+(1-pretendedStart)*float64(said)/float64(full))
	return &wire.Memory{AvailableMB: round(pretendedTotal * (1 - used)), PercentUsed: round(100 * used), TotalMB: pretendedTotal}
}

func round(f float64) float64 { return float64(int64(f*10+0.5)) / 10 }

// Mark is how full memory may be before a life ends. A machine that is fuller when a
// life begins has to fall below it first, or it would only ever restart.
type Mark struct {
	Percent float64 // zero: no mark

	below bool // memory was, in this life
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
