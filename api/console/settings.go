package console

import (
	"fmt"
	"net/http"
	"slices"

	"revoked"
	"revoked/api/request"
)

// settingTexts describes each setting.
var settingTexts = map[string]string{
	"lease_duration": "For how long a node may answer from its own copy without calling the leader. " +
		"A node that crashes with a lease delays revocations by slightly more than this.",
	"late_registration_window": "For how long the cluster remembers the revocation of a token that is not registered yet.",
	"cutoff_retention": "For how long the cluster keeps a cut-off. It must exceed the lifetime of your tokens, " +
		"and must not be shorter than late_registration_window.",
	"max_clock_skew": "How far the clock of a node may be off before the node loses its lease. " +
		"Expired tokens are deleted after the same time.",
	"secret_grace":      "For how long the old secret of a client stays valid after a new one is created.",
	"audit_retention":   "For how long an entry of the audit log is kept.",
	"audit_max_entries": "How many of the newest entries of the audit log are kept.",
}

// A setting is a replicated setting with its current value.
type setting struct{ Name, Value, Default, Min, Max, Text string }

// settingsPage is the body of the list of settings.
type settingsPage struct{ Settings []setting }

// settingPage is the body of the page of one setting.
type settingPage struct{ setting }

// settings returns the settings in display order.
func (v *visit) settings() ([]setting, error) {
	var present map[string]any
	if err := v.call("GET", "/v1/settings", nil, &present); err != nil {
		return nil, err
	}
	var all []setting
	defaults := revoked.DefaultSettings()
	for _, r := range revoked.SettingRules() {
		value := fmt.Sprint(present[r.Name])
		if n, ok := present[r.Name].(float64); ok {
			value = r.Format(int64(n))
		}
		all = append(all, setting{r.Name, value, r.Format(r.Value(&defaults)), r.Format(r.Min), r.Format(r.Max),
			settingTexts[r.Name]})
	}
	return all, nil
}

// setting returns the setting that the path names.
func (v *visit) setting() (setting, error) {
	all, err := v.settings()
	if err != nil {
		return setting{}, err
	}
	name := v.http.PathValue("name")
	if i := slices.IndexFunc(all, func(s setting) bool { return s.Name == name }); i >= 0 {
		return all[i], nil
	}
	return setting{}, &request.Failure{Status: http.StatusNotFound, Title: "No such setting", Outcome: "not_found"}
}

func (v *visit) getSettings() error {
	all, err := v.settings()
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "Settings", &settingsPage{all})
}

func (v *visit) getSetting() error {
	s, err := v.setting()
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "Setting "+s.Name, &settingPage{s})
}

// postSetting changes a setting, unless its current value differs from the value that the page has
// shown.
func (v *visit) postSetting() error {
	name := v.http.PathValue("name")
	if err := v.confirmed(name); err != nil {
		return err
	}
	change := map[string]any{name: v.field("value")}
	if v.field("value") == "default" {
		change[name] = nil
	}
	if v.may("PATCH /v1/settings") { // otherwise the API refuses the call, and records it in the audit log
		s, err := v.setting()
		if err != nil {
			return err
		}
		if shown := v.field("shown"); shown != s.Value {
			return &request.Failure{Status: http.StatusConflict, Title: "Changed meanwhile", Outcome: "conflict",
				Detail: fmt.Sprintf("Nothing was done: %s is now %s, not %s.", name, s.Value, shown)}
		}
	}
	var made map[string]any
	if err := v.call("PATCH", "/v1/settings", change, &made); err != nil {
		return err
	}
	return v.done(pathOf("settings", name), "%s is changed.", name)
}
