// Package rules applies the commands of the log to the state. Its functions are deterministic: they
// use no clock, no random source, no map order and no goroutine. Equal states that apply equal
// commands give equal results, equal rows and equal hashes. A change of a rule that an existing log
// may have used needs a new command.Rules: see fsm/DESIGN.md.
//
// An Applier collects the changes of one commit. Reads see its earlier changes, except scans, which
// see committed rows only. So commit before a command for which [Scans] is true.
//
// Three layers apply a command, each a struct that embeds the one below. Applier implements the
// rules, access reads and writes typed rows, and unit collects the writes. A layer calls only the
// layers below it.
//
// A rule that refuses an operation returns a Result with an error and has written nothing. An error
// of the store, or a broken invariant, is in Applier.Err: the state is undefined and the process
// must end.
package rules
