/** Something that a command touched, by its ids on the source. */
interface Subject {
  readonly class: string
  readonly oid: number
}

interface Note {
  readonly text: string
  /** Keys of what it is about and is not settled yet. */
  readonly open: Set<string>
  /** It stays true when a later command finds everything as it should be. */
  readonly lasts: boolean
}

/**
 * What was not replayed exactly. Whoever restores is told of what the target lacks in the end: not of what a later
 * command found to be as on the source, nor of what was dropped since. What is about nothing that can be named stays.
 */
export class ReplayNotes {
  private readonly notes = new Set<Note>()
  private readonly byKey = new Map<string, Set<Note>>()

  add(text: string, about: readonly Subject[] = [], lasts: 'until dropped' | 'until settled' = 'until settled'): void {
    const named = about.filter((subject) => subject.oid !== 0)
    // What is said of a thing now holds in the place of what was said before.
    if (lasts === 'until settled') this.settle(named)
    const note: Note = { text, open: new Set(named.map(keyOf)), lasts: lasts === 'until dropped' }
    this.notes.add(note)
    for (const key of note.open) {
      const others = this.byKey.get(key) ?? new Set()
      this.byKey.set(key, others.add(note))
    }
  }

  /** These are what they were on the source. */
  settle(subjects: readonly Subject[]): void {
    for (const subject of subjects) this.close(keyOf(subject), (note) => !note.lasts)
  }

  /** These are gone. */
  forget(subjects: readonly Subject[]): void {
    for (const subject of subjects) this.close(keyOf(subject), () => true)
  }

  /** In the order of the stream, each once. */
  all(): readonly string[] {
    return [...new Set([...this.notes].map(({ text }) => text))]
  }

  private close(key: string, isClosed: (note: Note) => boolean): void {
    for (const note of this.byKey.get(key) ?? []) {
      if (!isClosed(note)) continue
      note.open.delete(key)
      this.byKey.get(key)?.delete(note)
      if (note.open.size === 0) this.notes.delete(note)
    }
    if (this.byKey.get(key)?.size === 0) this.byKey.delete(key)
  }
}

const keyOf = ({ class: catalog, oid }: Subject): string => `${catalog} ${oid}`
