// TCP-MD5 does not exist on MPTCP sockets, which Go would otherwise listen on.
//go:debug multipathtcp=0

// Command msee is a software-defined Microsoft Enterprise Edge: the router at
// Microsoft's end of an ExpressRoute circuit, for the lab.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// exitError is an exit status that has been explained already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	root := &cobra.Command{
		Use:           "msee",
		Short:         "A software-defined Microsoft Enterprise Edge (the ExpressRoute router)",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(edgeCommand(), gatewayCommand(), speakerCommand(), guardCommand(), checkCommand(), reloadCommand(), macsecCommand(), drainCommand(), undrainCommand(), showCommand(), labCommand())
	if err := root.Execute(); err != nil {
		var status exitError
		if errors.As(err, &status) {
			os.Exit(int(status))
		}
		fmt.Fprintln(os.Stderr, "msee:", err)
		os.Exit(1)
	}
}
