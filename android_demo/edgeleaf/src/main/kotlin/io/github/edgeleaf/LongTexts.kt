package io.github.edgeleaf

/**
 * Shortens a long text before it goes to the encoder, so that it needs little memory; its vector does not change.
 * The same rules as in Python, `edgeleaf/bundle/long_texts.py`.
 *
 * @param units after this many ASCII words and punctuation marks, nothing in a text matters.
 * @param characters after this many ASCII letters and digits, nothing in a word matters. 0 if all of a word and every
 *   space matters, and a unit is a letter or digit with one of the separators between it and another one, as with BPE
 *   and Unigram.
 * @param separators a space and perhaps some punctuation marks; empty if ASCII alone is known.
 */
internal class LongTexts(
    private val units: Int,
    private val characters: Int,
    private val separators: String,
) {

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

    /** A letter or digit with a separator between it and another one. */
    private fun isNextWord(text: String, i: Int) = when {
        i < 2 -> false
        separators.isEmpty() -> isWord(text[i]) && text[i - 1] == ' ' && isWord(text[i - 2])
        else -> isLetter(text[i]) && text[i - 1] in separators && isLetter(text[i - 2])
    }

    companion object {
        /** A text of up to this many characters goes to the encoder unchanged. */
        private const val LONG = 20_000
        private val ENTRY = Regex("([0-9]{1,9}) ([0-9]{1,9})(?: ( [。，、！？；：]*))?")

        /** Letters of other scripts, from the first to the last of each run, as in Python. */
        private const val LETTERS =
            "\u00c0\u00d6\u00d8\u00f6\u00f8\u0131\u0134\u013e\u0141\u0148\u014a\u017e" +
                "\u0386\u0386\u0388\u038a\u038c\u038c\u038e\u03a1\u03a3\u03ce\u0400\u0481\u048a\u052f\u05d0\u05ea" +
                "\u0621\u063a\u0641\u064a\u0905\u0939\u0e01\u0e30\u3041\u3096\u30a1\u30fa\u4e00\u9fa5\uac00\ud7a3"

        /** Reads the entry of a file's metadata; null if there is no valid one, and texts stay as they are. */
        fun read(entry: String?): LongTexts? {
            val (units, characters, separators) = ENTRY.matchEntire(entry ?: "")?.destructured ?: return null
            return LongTexts(units.toInt(), characters.toInt(), separators)
        }

        private fun isWord(character: Char) = character in '0'..'9' || character in 'A'..'Z' || character in 'a'..'z'

        private fun isLetter(character: Char): Boolean =
            isWord(character) || (LETTERS.indices step 2).any { character in LETTERS[it]..LETTERS[it + 1] }

        private fun isBlank(character: Char) =
            character == ' ' || character == '\t' || character == '\n' || character == '\r'

        private fun isPunctuation(character: Char) =
            character in '!'..'/' || character in ':'..'@' || character in '['..'`' || character in '{'..'~'
    }
}
