package io.github.edgeleaf

/**
 * Shortens a long text before it goes to the encoder, so that it needs little memory; its vector does not change.
 * The same rules as in Python, `edgeleaf/bundle/long_texts.py`.
 *
 * @param units after this many ASCII words and punctuation marks, nothing in a text matters.
 * @param characters after this many ASCII letters and digits, nothing in a word matters. 0 if all of a word and every
 *   space matters, and only words behind a word and one space count as units, as with BPE and Unigram.
 */
internal class LongTexts(private val units: Int, private val characters: Int) {

    /** A text that has the same tokens in the encoder's window but leaves out most of the rest. */
    fun shortened(text: String): String {
        if (text.codePointCount(0, text.length) <= LONG) return text
        val end = end(text)
        if (characters == 0) return text.substring(0, end)
        val out = StringBuilder()
        var word = 0 // letters and digits directly before i
        var spaces = 0 // blanks directly before i
        for (i in 0 until end) {
            val character = text[i]
            word = if (isWord(character)) word + 1 else 0
            spaces = if (isBlank(character)) spaces + 1 else 0
            when {
                word > characters -> Unit
                spaces == 2 -> out[out.length - 1] = ' '
                spaces > 2 -> Unit
                else -> out.append(character)
            }
        }
        return out.toString()
    }

    /** Where the first unit that cannot matter begins. */
    private fun end(text: String): Int {
        var count = 0
        for (i in text.indices) {
            if ((if (characters == 0) isNextWord(text, i) else isUnit(text, i)) && count++ == units) return i
        }
        return text.length
    }

    /** A punctuation mark, or a word's first letter or digit. */
    private fun isUnit(text: String, i: Int): Boolean {
        val begins = isWord(text[i]) && (i == 0 || isBlank(text[i - 1]) || isPunctuation(text[i - 1]))
        return begins || isPunctuation(text[i])
    }

    /** A letter or digit with one space between it and another one. */
    private fun isNextWord(text: String, i: Int) =
        i > 1 && isWord(text[i]) && text[i - 1] == ' ' && isWord(text[i - 2])

    companion object {
        /** A text of up to this many characters goes to the encoder unchanged. */
        private const val LONG = 20_000
        private val ENTRY = Regex("([0-9]{1,9}) ([0-9]{1,9})")

        /** Reads the entry of a file's metadata; null if there is no valid one, and texts stay as they are. */
        fun read(entry: String?): LongTexts? {
            val (units, characters) = ENTRY.matchEntire(entry ?: "")?.destructured ?: return null
            return LongTexts(units.toInt(), characters.toInt())
        }

        private fun isWord(character: Char) = character in '0'..'9' || character in 'A'..'Z' || character in 'a'..'z'

        private fun isBlank(character: Char) =
            character == ' ' || character == '\t' || character == '\n' || character == '\r'

        private fun isPunctuation(character: Char) =
            character in '!'..'/' || character in ':'..'@' || character in '['..'`' || character in '{'..'~'
    }
}
