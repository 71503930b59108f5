package store

// Task is one thing to do.
type Task struct {
	ID       int
	Title    string
	Priority int
}

// Store keeps tasks in memory.
type Store struct{ tasks []Task }

// New is an empty store.
func New() *Store { return &Store{} }

// Add keeps one more.
func (s *Store) Add(title string, priority int) Task {
	task := Task{ID: len(s.tasks) + 1, Title: title, Priority: priority}
	s.tasks = append(s.tasks, task)
	return task
}
