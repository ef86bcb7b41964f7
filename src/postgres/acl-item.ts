/** One right of an item of an ACL. A role of null is PUBLIC. */
export interface AclRight {
  readonly role: string | null
  /** The right's letter, such as `r`; what it means depends on the kind of object. */
  readonly letter: string
  readonly grantable: boolean
}

// As the catalogs write an item: `alice=rw*/owner`, in which a star is the grant option of the letter before it.
export function rightsInAcl(item: string): AclRight[] {
  const match = /^("(?:[^"]|"")*"|[^=]*)=([a-zA-Z*]*)\//.exec(item)
  if (!match) return []
  const name = (match[1] ?? '').replace(/^"|"$/g, '').replaceAll('""', '"')
  return [...(match[2] ?? '').matchAll(/([a-zA-Z])(\*?)/g)].map(([, letter = '', star]) => ({
    role: name === '' ? null : name,
    letter,
    grantable: star !== '',
  }))
}
