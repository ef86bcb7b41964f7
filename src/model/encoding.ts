/**
 * Text in a server's encoding. Bytes pass through untouched wherever rows are concerned; only names are turned into
 * strings, and must read as they do in the catalogs, which a session reads in UTF-8. SQL_ASCII is bytes without a
 * meaning: a session is sent them as they are, and takes them for UTF-8, and so does this.
 */
export function nameDecoder(serverEncoding: string): (bytes: Buffer) => string {
  if (serverEncoding === 'UTF8' || serverEncoding === 'SQL_ASCII') return (bytes) => bytes.toString('utf8')
  const label = labels[serverEncoding]
  if (label === undefined) return (bytes) => bytes.toString('latin1')
  const decoder = new TextDecoder(label)
  return (bytes) => decoder.decode(bytes)
}

/** PostgreSQL's names of encodings, as the Encoding Standard calls them. (Its `latin1` is another: LATIN1 stays out.) */
const labels: Readonly<Record<string, string>> = {
  ...Object.fromEntries([2, 3, 4].map((n) => [`LATIN${n}`, `iso-8859-${n}`])),
  LATIN5: 'iso-8859-9',
  LATIN6: 'iso-8859-10',
  LATIN7: 'iso-8859-13',
  LATIN8: 'iso-8859-14',
  LATIN9: 'iso-8859-15',
  LATIN10: 'iso-8859-16',
  ...Object.fromEntries([5, 6, 7, 8].map((n) => [`ISO_8859_${n}`, `iso-8859-${n}`])),
  ...Object.fromEntries(
    [1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258, 874].map((n) => [`WIN${n}`, `windows-${n}`]),
  ),
  WIN866: 'ibm866',
  KOI8R: 'koi8-r',
  KOI8U: 'koi8-u',
  EUC_JP: 'euc-jp',
  EUC_KR: 'euc-kr',
  EUC_CN: 'gb2312',
}
