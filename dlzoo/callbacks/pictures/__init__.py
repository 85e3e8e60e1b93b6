"""What a run shows of its data and of the network's answers: a class for each kind of answer that a task gives."""
