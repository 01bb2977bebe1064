package llm

// Tagged returns what an answer in pieces of so many bytes is: its thought and
// its text.
func Tagged(answer string, size int) (is [2]string) {
	var tags thinkTags
	add := func(pieces []piece) {
		for _, p := range pieces {
			if p.thought {
				is[0] += p.text
			} else {
				is[1] += p.text
			}
		}
	}
	for len(answer) > 0 {
		n := min(size, len(answer))
		add(tags.take(answer[:n]))
		answer = answer[n:]
	}
	add(tags.end())
	return is
}
