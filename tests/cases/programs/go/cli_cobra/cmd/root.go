package cmd

import (
	"fmt"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"taskcli/internal/store"
)

// Root is the command that holds the others.
func Root() *cobra.Command {
	root := &cobra.Command{Use: "taskcli", Short: "Keeps tasks", SilenceUsage: true}
	var priority int
	add := &cobra.Command{
		Use:  "add TITLE",
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			tasks := store.New()
			task := tasks.Add(args[0], priority)
			color.NoColor = true
			fmt.Fprintln(command.OutOrStdout(), color.GreenString("added %d: %s (priority %d)", task.ID, task.Title, task.Priority))
			return nil
		},
	}
	add.Flags().IntVarP(&priority, "priority", "p", 1, "how urgent it is")
	root.AddCommand(add)
	return root
}
