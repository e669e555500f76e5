package nodepb

// Paths of the calls. All are POST with protobuf bodies, except PathReports, which is a stream.
const (
	PathHello   = "/node/v1/hello"
	PathJoin    = "/node/v1/join"
	PathAdmin   = "/node/v1/admin"
	PathSubmit  = "/node/v1/submit"
	PathMembers = "/node/v1/members"
	PathKeys    = "/node/v1/keys"
	PathEnroll  = "/node/v1/enroll"
	PathRenew   = "/node/v1/renew"
	PathReports = "/node/v1/reports"
)
