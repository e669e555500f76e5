package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node/jwks"
)

// gathered returns the values of a collector's series by series name, in the form name{label
// values}.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			series[fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "revoked_"), strings.Join(labels, ","))] =
				m.GetGauge().GetValue()
		}
	}
	return series
}

// The leader reports the fetches; every node reports the keys that it has.
func TestCollector_Fetches_OnlyOnLeader(t *testing.T) {
	w := newWorld("a")
	w.issuers = append(w.issuers, &revoked.Issuer{Name: "given", Keys: []revoked.IssuerKey{
		{State: revoked.KeyActive}, {State: revoked.KeyRetired}, {State: revoked.KeyBanned}, {State: revoked.KeyBanned},
	}})
	keys := map[string]float64{
		"issuers{given}": 1, "issuers{fetched}": 1,
		"issuer_keys{given,active}": 1, "issuer_keys{given,retired}": 1, "issuer_keys{given,banned}": 2,
		"issuer_keys{a,active}": 0, "issuer_keys{a,retired}": 0, "issuer_keys{a,banned}": 0,
	}
	want := func(name string, c *jwks.Collector, series map[string]float64) {
		t.Helper()
		all := maps.Clone(keys)
		maps.Copy(all, series)
		if got := gathered(t, c); !maps.Equal(got, all) {
			t.Errorf("%s: got %v, want %v", name, got, all)
		}
	}
	answer := w.answer
	w.answer = func(context.Context) (jwks.Set, error) {
		time.Sleep(5 * time.Second) // virtual time
		return jwks.Set{}, errors.New("status 500")
	}
	var last *jwks.Collector
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		c := jwks.NewCollector(r)
		last = c
		begin := time.Now()
		time.Sleep(4 * time.Second)
		want("before the end of the first fetch", c,
			map[string]float64{"issuer_fetch_age_seconds{a}": 4, "issuer_fetch_failures{a}": 0})
		for i := range 3 {
			time.Sleep(5 * time.Second)
			synctest.Wait()
			s, _ := r.States()
			want(fmt.Sprint("failure ", i+1), c, map[string]float64{
				"issuer_fetch_age_seconds{a}": time.Since(begin).Seconds(), "issuer_fetch_failures{a}": float64(i + 1),
				"issuer_last_fetch_seconds{a}": float64(s["a"].At.UnixMilli()) / 1e3,
			})
			if i == 2 {
				w.set(func() { w.answer = answer })
			}
			time.Sleep(time.Until(s["a"].NextAt))
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		want("a minute after a success", c, map[string]float64{
			"issuer_fetch_age_seconds{a}": 60, "issuer_fetch_failures{a}": 0,
			"issuer_last_fetch_seconds{a}": float64(time.Now().Unix()-60) + float64(time.Now().Nanosecond()/1e6)/1e3,
		})
	})
	want("not the leader", last, nil)
}
