// Package rotateca implements `revoked cert rotate-ca`, which moves a cluster to another CA without
// downtime.
//
// The command keeps no state of its own. Each run reads from the members which CAs they trust and
// which certificate they use, and derives the next step. A step is safe if each member trusts the
// CA of every certificate in use, before and after it.
package rotateca
