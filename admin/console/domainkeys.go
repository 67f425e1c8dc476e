package console

import (
	"errors"
	"net/url"

	"postern/mail"
	"postern/operate"
	"postern/relay/keyring"
	"postern/relay/sign"
)

// keyActions are what may be done to the DKIM keys of a domain.
var keyActions = []action{
	{path: "/domains/act/key-add", needs: operate.AddKeys, do: addKeys},
	{path: "/domains/act/key-rotate", needs: operate.RotateKeys, do: rotateKeys, sheet: "confirm", title: "DKIM keys"},
	{path: "/domains/act/key-check", needs: operate.CheckKeys, do: checkKeys},
	{path: "/domains/act/key-retire", needs: operate.RetireKey, do: retireKey, sheet: "confirm", title: "DKIM keys"},
	{path: "/domains/act/key-remove", needs: operate.RemoveKey, do: removeKey, sheet: "confirm", title: "DKIM keys"},
}

// keyRow is a DKIM key of ours.
type keyRow struct {
	operate.Key
	Record, ZoneLine     string
	Icon, Word           string
	ToDo                 Said // by a person; without text where there is nothing
	MayRetire, MayRemove bool
}

// keyRightsOf are what the visitor may do to keys.
type keyRights struct{ Add, Rotate, Check bool }

// keysOf are our keys of a domain, "" for all.
func keysOf(v *visit, domain string) (rows []keyRow, err error) {
	keys, err := v.console.Operations.Keys.List(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if domain != "" && k.Domain != domain {
			continue
		}
		row := keyRow{Key: k}
		if row.Record, err = k.Key.Record(); err != nil {
			return nil, err
		}
		if row.ZoneLine, err = k.ZoneLine(); err != nil {
			return nil, err
		}
		row.Icon, row.Word = stageOf(v, &k)
		if k.Next != "nothing" {
			row.ToDo = v.said(plain(600, k.Next))
			row.ToDo.Text = capital(row.ToDo.Text)
		}
		stage := k.State.Stage
		row.MayRetire = k.Stored && stage == keyring.Signing && v.may(operate.RetireKey)
		row.MayRemove = k.Stored && stage != keyring.Signing && v.may(operate.RemoveKey)
		rows = append(rows, row)
	}
	return rows, nil
}

// keyRightsOf are what the visitor may do to these keys.
func keyRightsOf(v *visit, keys []keyRow) (r keyRights) {
	r.Add, r.Check = v.may(operate.AddKeys) && len(keys) == 0, v.may(operate.CheckKeys) && len(keys) > 0
	for _, k := range keys {
		r.Rotate = r.Rotate || k.State.Stage == keyring.Signing && v.may(operate.RotateKeys)
	}
	return r
}

// stageOf says where a key is in its life.
func stageOf(v *visit, k *operate.Key) (icon, word string) {
	switch {
	case k.Over:
		return "warn", v.t("retired: its record may go")
	case k.State.Stage == keyring.New:
		return "wait", v.t("waits for its record")
	case k.State.Stage == keyring.Published:
		return "wait", v.t("published, will sign soon")
	case k.State.Stage == keyring.Retiring:
		return "wait", v.t("retiring")
	case k.State.Found == keyring.Absent || k.State.Found == keyring.Differs:
		return "bad", v.t("signs, but its record is wrong")
	}
	return "ok", v.t("signs")
}

// askedKey reads which domain and key an action is about, and the way back.
func askedKey(v *visit) (domain, selector, back string) {
	domain = mail.Cut(v.PostForm.Get("domain"), maxFilter)
	return domain, mail.Cut(v.PostForm.Get("selector"), maxFilter), "/domains/" + url.PathEscape(domain)
}

func addKeys(v *visit) (string, any, error) {
	domain, _, back := askedKey(v)
	_, err := v.console.Operations.Keys.Add(v.Context(), v.actor, domain, "", []string{sign.RSA2048, sign.Ed25519})
	if err != nil {
		return "", nil, err
	}
	v.leave("Keys were made. Publish their records; then they sign.")
	return back + "#keys", nil, nil
}

func rotateKeys(v *visit) (string, any, error) {
	domain, _, back := askedKey(v)
	if !v.confirmed() {
		return "", &confirmation{Question: v.t("Replace the DKIM keys of %s?", plain(120, domain)),
			Meaning: v.t("New keys are made. They take over once the world has seen their records for an hour."),
			Verb:    v.t("Replace"), Action: "/domains/act/key-rotate", Back: back, Fields: []field{{"domain",
				domain}}}, nil
	}
	if _, err := v.console.Operations.Keys.Rotate(v.Context(), v.actor, domain, nil); err != nil {
		return "", nil, err
	}
	v.leave("Keys were made. Publish their records; then they sign.")
	return back + "#keys", nil, nil
}

func checkKeys(v *visit) (string, any, error) {
	bePatient(v, longestAction)
	domain, _, back := askedKey(v)
	_, err := v.console.Operations.Keys.Check(v.Context(), v.actor, domain)
	if errors.Is(err, operate.ErrNoDNS) {
		err = &operate.Error{Kind: operate.Conflict, Msg: err.Error()}
	}
	if err != nil {
		return "", nil, err
	}
	v.leave("The records of the keys were looked for.")
	return back + "#keys", nil, nil
}

func retireKey(v *visit) (string, any, error) {
	domain, selector, back := askedKey(v)
	if !v.confirmed() {
		return "", &confirmation{Question: v.t("Let the key %s sign no more?", plain(120, selector)),
			Meaning: v.t("Its record has to stay in DNS for 8 days, for mail on its way."), Verb: v.t("Retire"),
			Danger: true,
			Action: "/domains/act/key-retire", Back: back, Fields: []field{{"domain", domain}, {"selector",
				selector}}}, nil
	}
	if err := v.console.Operations.Keys.Retire(v.Context(), v.actor, domain, selector, false); err != nil {
		return "", nil, err
	}
	v.leave("The key %s signs no more.", selector)
	return back + "#keys", nil, nil
}

func removeKey(v *visit) (string, any, error) {
	domain, selector, back := askedKey(v)
	if !v.confirmed() {
		return "", &confirmation{Question: v.t("Remove the key %s?", plain(120, selector)),
			Meaning: v.t("Its private half is gone then. This cannot be undone."), Verb: v.t("Remove"), Danger: true,
			Action: "/domains/act/key-remove", Back: back, Fields: []field{{"domain", domain}, {"selector",
				selector}}}, nil
	}
	if err := v.console.Operations.Keys.Remove(v.Context(), v.actor, domain, selector, false); err != nil {
		return "", nil, err
	}
	v.leave("The key %s is removed.", selector)
	return back + "#keys", nil, nil
}
