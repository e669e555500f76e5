package revoked

import (
	"math"
	"time"
)

// A Time is an instant in microseconds since the Unix epoch. Zero means absent.
type Time int64

// MaxTime is later than any time that a registration may contain.
const MaxTime Time = math.MaxInt64

// TimeOf converts t; the zero time.Time becomes 0.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMicro())
}

// Unix returns the whole seconds since the epoch, rounded down.
func (t Time) Unix() int64 {
	s := int64(t) / 1e6
	if int64(t)%1e6 < 0 {
		s--
	}
	return s
}

// Std returns t as a time.Time in UTC; 0 becomes the zero time.Time.
func (t Time) Std() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(t)).UTC()
}

// Add returns t+d, capped at [MaxTime].
func (t Time) Add(d time.Duration) Time {
	us := Time(d.Microseconds())
	if us > 0 && t > MaxTime-us {
		return MaxTime
	}
	return t + us
}

// Sub returns t-u, capped at the longest and the shortest duration, about 292 years. The range of
// times is larger.
func (t Time) Sub(u Time) time.Duration {
	const most = Time(math.MaxInt64 / int64(time.Microsecond))
	return time.Duration(min(max(t-u, -most), most)) * time.Microsecond
}
