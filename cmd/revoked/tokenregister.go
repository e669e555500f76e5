package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A registration holds the flags of `token register` that describe one grant.
type registration struct {
	grant, client, subject, session string
	username, issuer, scope         string
	audience                        []string
	accessFile, refreshFile         string
	accessLifetime, refreshLifetime time.Duration
	ndjson, results                 string
}

func tokenRegisterCommand() *cobra.Command {
	r := &registration{}
	cmd := &cobra.Command{
		Use:   "register [FILE|-]",
		Short: "Register tokens that an authorization server issued",
		Long: "Register the tokens of a grant: a JSON body from a file or standard input, or one made of\n" +
			"flags and files that hold the tokens, or with --ndjson many bodies, one a line, streamed.\n" +
			"An issuer hands a token out only after this has ended with 0.",
		Example: "  revoked token register grant.json\n" +
			"  revoked token register --client app --subject alice --access-token-file at.txt --expires-in 1h\n" +
			"  zcat tokens.ndjson.gz | revoked token register --ndjson -",
		Args: cobra.MaximumNArgs(1),
	}
	conn := addConnectionFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.grant, "grant", "", "grant id (default: made by the server)")
	f.StringVar(&r.client, "client", "", "client id that the tokens were issued to")
	f.StringVar(&r.subject, "subject", "", "subject that authorized the grant")
	f.StringVar(&r.session, "session", "", "login session at the authorization server")
	f.StringVar(&r.username, "username", "", "name of the subject for people")
	f.StringVar(&r.issuer, "issuer", "", "issuer of the tokens")
	f.StringVar(&r.scope, "scope", "", "scope, separated by spaces")
	f.StringArrayVar(&r.audience, "audience", nil, "audience of the tokens (repeatable)")
	f.StringVar(&r.accessFile, "access-token-file", "", "file of the access token; - is standard input")
	f.StringVar(&r.refreshFile, "refresh-token-file", "", "file of the refresh token; - is standard input")
	f.DurationVar(&r.accessLifetime, "expires-in", 0, "lifetime of the access token from now (default: for ever)")
	f.DurationVar(&r.refreshLifetime, "refresh-expires-in", 0, "lifetime of the refresh token from now (default: for ever)")
	f.StringVar(&r.ndjson, "ndjson", "", "file of many bodies, one a line; - is standard input")
	f.StringVar(&r.results, "results", "errors", `with --ndjson -o json: "all" results or only "errors" and a summary`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		if r.ndjson != "" {
			if len(args) > 0 || r.described(f) {
				return usageError("--ndjson goes with neither a file argument nor flags that describe one grant")
			}
			return r.stream(cmd, a)
		}
		return r.registerOne(cmd, a, args)
	}
	return cmd
}

// described reports whether flags describe a grant.
func (r *registration) described(f *pflag.FlagSet) bool {
	return r.client != "" || r.grant != "" || r.subject != "" || r.session != "" || r.username != "" || r.issuer != "" ||
		r.scope != "" || len(r.audience) > 0 || r.accessFile != "" || r.refreshFile != "" ||
		f.Changed("expires-in") || f.Changed("refresh-expires-in")
}

// maxRegistration bounds the body of one registration.
const maxRegistration = 64 << 10

// registerOne registers one grant.
func (r *registration) registerOne(cmd *cobra.Command, a *apiClient, args []string) error {
	body, err := r.body(cmd, args)
	if err != nil {
		return err
	}
	c := call{
		what: "register the tokens", method: http.MethodPost, path: "/v1/grants",
		contentType: "application/json", body: body,
	}
	// Without a grant id a repeat is safe as well: tokens that are known already stay in their grant.
	out, err := a.do(cmd.Context(), c)
	if err != nil {
		return err
	}
	return answer(cmd, a, c.what, out, func(w io.Writer, v registerAnswer) error {
		return printTable(w, []string{"GRANT", "INDEX", "STATE"}, [][]string{{v.GrantID, strconv.FormatUint(v.Index, 10), v.State}})
	})
}

// registerAnswer is the body of the answer to POST /v1/grants.
type registerAnswer struct {
	GrantID string `json:"grant_id"`
	Index   uint64 `json:"index"`
	State   string `json:"state"`
}

// body returns the JSON body: that of the file, or one made of the flags.
func (r *registration) body(cmd *cobra.Command, args []string) ([]byte, error) {
	f := cmd.Flags()
	if len(args) == 1 {
		if r.described(f) {
			return nil, usageError("a body comes from a file or from flags, not from both")
		}
		return readBody(cmd, args[0])
	}
	switch {
	case r.client == "":
		return nil, usageError("name a file with the JSON body (- is standard input), or --client and token files")
	case r.accessFile == "" && r.refreshFile == "":
		return nil, usageError("name --access-token-file, --refresh-token-file or both")
	case r.accessFile == "-" && r.refreshFile == "-":
		return nil, usageError("only one token can come from standard input")
	case f.Changed("expires-in") && r.accessFile == "" || f.Changed("refresh-expires-in") && r.refreshFile == "":
		return nil, usageError("a lifetime needs the file of its token")
	case f.Changed("expires-in") && r.accessLifetime <= 0: // 0 would be taken for the lack of a lifetime
		return nil, usageError("--expires-in must be more than 0; without it the token never expires")
	case f.Changed("refresh-expires-in") && r.refreshLifetime <= 0:
		return nil, usageError("--refresh-expires-in must be more than 0; without it the token never expires")
	}
	return r.fromFlags(cmd, time.Now())
}

func (r *registration) fromFlags(cmd *cobra.Command, now time.Time) ([]byte, error) {
	type token struct {
		Token     string `json:"token"`
		IssuedAt  int64  `json:"issued_at"`
		ExpiresAt int64  `json:"expires_at,omitempty"`
	}
	body := struct {
		GrantID  string   `json:"grant_id,omitempty"`
		ClientID string   `json:"client_id"`
		Subject  string   `json:"subject,omitempty"`
		Session  string   `json:"session,omitempty"`
		Username string   `json:"username,omitempty"`
		Issuer   string   `json:"issuer,omitempty"`
		Scope    string   `json:"scope,omitempty"`
		Audience []string `json:"audience,omitempty"`
		Access   *token   `json:"access_token,omitempty"`
		Refresh  *token   `json:"refresh_token,omitempty"`
	}{
		GrantID: r.grant, ClientID: r.client, Subject: r.subject, Session: r.session, Username: r.username,
		Issuer: r.issuer, Scope: r.scope, Audience: r.audience,
	}
	read := func(file string, lifetime time.Duration) (*token, error) {
		if file == "" {
			return nil, nil
		}
		text, err := readToken(cmd, file)
		if err != nil {
			return nil, err
		}
		t := &token{Token: text, IssuedAt: now.Unix()}
		if lifetime > 0 {
			t.ExpiresAt = now.Add(lifetime).Unix()
		}
		return t, nil
	}
	var err error
	if body.Access, err = read(r.accessFile, r.accessLifetime); err != nil {
		return nil, err
	}
	if body.Refresh, err = read(r.refreshFile, r.refreshLifetime); err != nil {
		return nil, err
	}
	return json.Marshal(body)
}

// readBody reads a JSON body from a file or standard input. Neither the name nor the text is repeated
// in an error: either may be a token.
func readBody(cmd *cobra.Command, name string) ([]byte, error) {
	f, err := openInput(cmd, name)
	if err != nil {
		return nil, fmt.Errorf("read the registration: %w (a token itself is never given on the command line)", withoutPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRegistration+1))
	if err != nil {
		return nil, fmt.Errorf("read the registration: %w", withoutPath(err))
	}
	if len(b) > maxRegistration {
		return nil, fmt.Errorf("the registration %w: at most %d bytes; many go by --ndjson", errTooLong, maxRegistration)
	}
	if !json.Valid(b) {
		return nil, errors.New("the registration is not one JSON value; many, one a line, go by --ndjson")
	}
	return b, nil
}

// stream sends the bodies of a file, one a line, and shows the results as they come.
func (r *registration) stream(cmd *cobra.Command, a *apiClient) error {
	if r.results != "all" && r.results != "errors" {
		return usageError(`--results must be "all" or "errors"`)
	}
	in, err := openInput(cmd, r.ndjson)
	if err != nil {
		return fmt.Errorf("read the registrations: %w", withoutPath(err))
	}
	defer in.Close()
	// The answer begins while the body is still being sent, and lasts as long as the file: there is
	// no timeout. When this function ends, so does what is left of the request.
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	c := call{
		what: "register the tokens", method: http.MethodPost, path: "/v1/grants",
		contentType: "application/x-ndjson", accept: "application/x-ndjson", stream: onlyReader{in},
	}
	if r.results == "errors" || !a.asJSON {
		c.path += "?results=errors"
	}
	resp, addr, err := a.open(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum, err := readResults(cmd, a.asJSON, resp.Body)
	if err != nil {
		return fmt.Errorf("%s at %s: %w; it is safe to send the whole file again", c.what, addr, err)
	}
	return sum.report(cmd, a.asJSON)
}

// onlyReader hides every method but Read: the transport would close what it can close, and standard
// input is not ours to close.
type onlyReader struct{ io.Reader }

// A resultLine is any line of the answer to a stream of registrations.
type resultLine struct {
	GrantID string  `json:"grant_id"`
	State   string  `json:"state"`
	Error   string  `json:"error"`
	Detail  string  `json:"detail"`
	Line    uint64  `json:"line"`
	Lines   *uint64 `json:"lines"` // the summary has it, and no other line
	resultSummary
}

// A resultSummary is the last line with ?results=errors.
type resultSummary struct {
	Registered uint64 `json:"registered"`
	Known      uint64 `json:"known"`
	Revoked    uint64 `json:"revoked"` // of the registered and known: dead from the start
	Failed     uint64 `json:"failed"`
}

// A resultCount is what was seen of the answer.
type resultCount struct {
	resultSummary
	whole bool // the summary line was seen
}

// readResults reads the answer to its end. It shows failures as they come.
func readResults(cmd *cobra.Command, asJSON bool, body io.Reader) (resultCount, error) {
	var n resultCount
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var l resultLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return n, errors.New("the answer is not what this version understands")
		}
		switch {
		case l.Lines != nil:
			n = resultCount{resultSummary: l.resultSummary, whole: true}
		case l.Error != "":
			n.Failed++
		default:
			n.Registered++
		}
		if asJSON {
			if err := printBody(cmd.OutOrStdout(), lines.Bytes()); err != nil {
				return n, err
			}
		} else if l.Error != "" && l.Lines == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "line %d: %s\n", l.Line, printable(strings.TrimSuffix(l.Error+": "+unrepeated(l.Error, l.Detail), ": ")))
		}
	}
	return n, lines.Err()
}

// report says how many were registered; failures end the command with 1.
func (n resultCount) report(cmd *cobra.Command, asJSON bool) error {
	if !asJSON {
		if !n.whole {
			return errors.New("the answer ended before its summary: some lines may not have been registered; it is safe to send the whole file again")
		}
		err := printTable(cmd.OutOrStdout(), []string{"REGISTERED", "KNOWN", "REVOKED", "FAILED"}, [][]string{{
			strconv.FormatUint(n.Registered, 10), strconv.FormatUint(n.Known, 10), strconv.FormatUint(n.Revoked, 10), strconv.FormatUint(n.Failed, 10),
		}})
		if err != nil {
			return err
		}
	}
	if n.Failed > 0 {
		return fmt.Errorf("%d registrations failed; it is safe to send them again", n.Failed)
	}
	return nil
}
