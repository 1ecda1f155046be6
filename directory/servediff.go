package directory

import (
	"slices"

	"cepa/env"
)

// maxDiffReaders is how many may wait for one diff to be made.
const maxDiffReaders = 1024

// diffs are those to the consensus in use that were asked for. Each is made once, off the loop, one after the other, and
// shared; there are no more of them than older consensuses are held.
type diffs struct {
	answers map[diffKey][]byte
	queue   []*diffJob // the first is being made
}

// diffJob is a diff that somebody waits for.
type diffJob struct {
	diffKey
	from, to []byte
	readers  []func(answer []byte)
}

// serveDiff answers AskDiff: at once when the diff is there, or cannot be.
func (a *Agent) serveDiff(q Request, done func(answer []byte)) {
	d, key := &a.serving.diffs, diffKey{q.Known, q.Digest}
	if answer := d.answers[key]; answer != nil {
		done(answer)
		return
	}
	if at := slices.IndexFunc(d.queue, func(j *diffJob) bool { return j.diffKey == key }); at >= 0 {
		if len(d.queue[at].readers) >= maxDiffReaders {
			done(AppendAnswer(nil, StatusBusy, nil))
			return
		}
		d.queue[at].readers = append(d.queue[at].readers, done)
		return
	}
	from, to := a.cfg.Follower.bodiesFor(key.from, key.to)
	if from == nil {
		done(AppendAnswer(nil, StatusNotFound, nil))
		return
	}
	d.queue = append(d.queue, &diffJob{key, from, to, []func([]byte){done}})
	if len(d.queue) == 1 {
		a.makeNextDiff()
	}
}

func (a *Agent) makeNextDiff() {
	j := a.serving.diffs.queue[0]
	var diff []byte
	var err error
	a.env.Pool.Offload(func() { diff, err = makeDiff(j.from, j.to) }, func() {
		answer := AppendAnswer(nil, StatusNotFound, nil)
		if err == nil {
			answer = AppendAnswer(nil, StatusOK, diff)
		}
		a.stats.DiffsMade++
		d := &a.serving.diffs
		if from, _ := a.cfg.Follower.bodiesFor(j.diffKey.from, j.diffKey.to); from != nil { // no newer one has come meanwhile
			if d.answers == nil {
				d.answers = make(map[diffKey][]byte)
			}
			d.answers[j.diffKey] = answer
		}
		d.queue = d.queue[1:]
		if len(d.queue) > 0 {
			a.makeNextDiff()
		}
		for _, done := range j.readers {
			done(answer)
		}
	})
}

// reader counts an answer against the budgets of who asked, whenever it comes.
func (a *Agent) reader(from *env.Peer, done func(answer []byte)) func(answer []byte) {
	return func(answer []byte) {
		if Status(answer[0]) == StatusOK {
			a.stats.Served++
			a.charge(from, len(answer))
		}
		done(answer)
	}
}
