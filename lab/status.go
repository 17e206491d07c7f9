package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Status writes a table of the labs that there are.
func Status(w io.Writer) error {
	names := Names()
	if len(names) == 0 {
		fmt.Fprintln(w, "no lab is up; topologies: "+strings.Join(Topologies(), ", "))
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "LAB\tTOPOLOGY\tSTATE\tSINCE\tNAMESPACES\tDAEMONS")
	for _, name := range names {
		s, err := loadState(name)
		if err != nil {
			fmt.Fprintf(tab, "%s\t-\tbroken: msee lab down %s\t-\t%d\t-\n", name, name, len(labNamespaces(name)))
			continue
		}
		alive, dead := 0, []string{}
		for _, p := range s.Processes {
			if s.BootID == bootID() && p.alive() {
				alive++
			} else {
				dead = append(dead, p.Node+" "+p.Name)
			}
		}
		daemons := fmt.Sprintf("%d of %d", alive, len(s.Processes))
		if len(dead) > 0 {
			daemons += " (ended: " + strings.Join(dead, ", ") + ")"
		}
		state := "up"
		if !s.Ready {
			state = "not converged"
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%d\t%s\n", name, s.Topology, state,
			s.Started.Format(time.DateTime), len(labNamespaces(name)), daemons)
	}
	return tab.Flush()
}
