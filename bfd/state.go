package bfd

// The state machine (RFC 5880 §6.2, §6.8.6, §6.8.16) is a table over all
// states and inputs:
//
//	                        +--+
//	                        |  | UP, ADMIN DOWN, TIMER
//	                        |  V
//	                DOWN  +------+  INIT
//	         +------------|      |------------+
//	         |            | DOWN |            |
//	         |  +-------->|      |<--------+  |
//	         |  |         +------+         |  |
//	         |  |                          |  |
//	         |  |               ADMIN DOWN,|  |
//	         |  |ADMIN DOWN,          DOWN,|  |
//	         |  |TIMER                TIMER|  |
//	         V  |                          |  V
//	       +------+                      +------+
//	  +----|      |                      |      |----+
//	DOWN|  | INIT |--------------------->|  UP  |    |INIT, UP
//	  +--->|      | INIT, UP             |      |<---+
//	       +------+                      +------+

// input is what can happen to a session's state. The first four are packets,
// by the state they carry.
type input uint8

const (
	recvAdminDown input = iota
	recvDown
	recvInit
	recvUp
	detectionExpired // no packet for the detection time
	pathDown         // we know ourselves: the link is gone
	disable          // by the administrator
	enable
	inputCount = iota
)

// cell is what becomes of a session: its next state, and if that is another,
// the diagnostic.
type cell struct {
	next State
	diag Diag
}

var transitions = [stateCount][inputCount]cell{
	AdminDown: { // packets are discarded before they come here
		recvAdminDown:    {AdminDown, 0},
		recvDown:         {AdminDown, 0},
		recvInit:         {AdminDown, 0},
		recvUp:           {AdminDown, 0},
		detectionExpired: {AdminDown, 0},
		pathDown:         {AdminDown, 0},
		disable:          {AdminDown, 0},
		enable:           {Down, DiagNone},
	},
	Down: {
		recvAdminDown:    {Down, 0},
		recvDown:         {Init, DiagNone},
		recvInit:         {Up, DiagNone},
		recvUp:           {Down, 0},
		detectionExpired: {Down, 0},
		pathDown:         {Down, 0},
		disable:          {AdminDown, DiagAdminDown},
		enable:           {Down, 0},
	},
	Init: {
		recvAdminDown:    {Down, DiagNeighborDown},
		recvDown:         {Init, 0},
		recvInit:         {Up, DiagNone},
		recvUp:           {Up, DiagNone},
		detectionExpired: {Down, DiagTimeExpired},
		pathDown:         {Down, DiagPathDown},
		disable:          {AdminDown, DiagAdminDown},
		enable:           {Init, 0},
	},
	Up: {
		recvAdminDown:    {Down, DiagNeighborDown},
		recvDown:         {Down, DiagNeighborDown},
		recvInit:         {Up, 0},
		recvUp:           {Up, 0},
		detectionExpired: {Down, DiagTimeExpired},
		pathDown:         {Down, DiagPathDown},
		disable:          {AdminDown, DiagAdminDown},
		enable:           {Up, 0},
	},
}
