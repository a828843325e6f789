package io.github.edgeleaf

import java.math.BigInteger
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** Invalid JSON, or a value of the wrong kind; the message is one line without the file's name. */
internal class JsonFault(message: String) : Exception(message)

/**
 * Parses JSON, and refuses what other readers would read differently or fail on: a key that occurs twice in a table,
 * NaN, a whole number of more than 40 digits, half a surrogate pair, brackets nested deeper than 64.
 *
 * @return [Map], [List], [String], [Boolean], null, [Long] or [BigInteger] for whole numbers, [Double] for others.
 * @throws JsonFault it is not such JSON.
 */
internal fun parseJson(text: String): Any? = JsonReader(text).whole()

/** Parses JSON in UTF-8, see the other [parseJson]. */
internal fun parseJson(bytes: ByteArray): Any? = try {
    val decoder = Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
    parseJson(decoder.decode(ByteBuffer.wrap(bytes)).toString())
} catch (_: CharacterCodingException) {
    throw JsonFault("not UTF-8")
}

private const val MOST_DEPTH = 64
private const val MOST_DIGITS = 40
private const val SHOWN = 60

private class JsonReader(private val text: String) {
    private var at = 0

    fun whole(): Any? {
        val value = value(0)
        skipSpaces()
        if (at < text.length) throw notJson("more text than one value")
        return value
    }

    private fun value(depth: Int): Any? {
        skipSpaces()
        return when (peek()) {
            '{' -> table(deeper(depth))
            '[' -> list(deeper(depth))
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun deeper(depth: Int): Int {
        if (depth == MOST_DEPTH) throw JsonFault("brackets nested deeper than $MOST_DEPTH")
        return depth + 1
    }

    private fun table(depth: Int): Map<String, Any?> {
        val table = LinkedHashMap<String, Any?>()
        at++
        skipSpaces()
        if (peek() == '}') {
            at++
            return table
        }
        while (true) {
            skipSpaces()
            if (peek() != '"') throw notJson("a key in quotes is needed")
            val key = string()
            skipSpaces()
            take(':')
            if (key in table) throw JsonFault("the key ${shown(key)} occurs twice in a table")
            table[key] = value(depth)
            skipSpaces()
            if (peek() == '}') {
                at++
                return table
            }
            take(',')
        }
    }

    private fun list(depth: Int): List<Any?> {
        val list = ArrayList<Any?>()
        at++
        skipSpaces()
        if (peek() == ']') {
            at++
            return list
        }
        while (true) {
            list.add(value(depth))
            skipSpaces()
            if (peek() == ']') {
                at++
                return list
            }
            take(',')
        }
    }

    private fun string(): String {
        val start = ++at
        while (peek() != '"' && peek() != '\\') plain()
        if (peek() == '"') return checked(text.substring(start, at++))
        val out = StringBuilder(text.substring(start, at))
        while (peek() != '"') {
            if (peek() == '\\') out.append(escaped()) else out.append(plain())
        }
        at++
        return checked(out.toString())
    }

    private fun plain(): Char {
        val character = peek()
        if (character < ' ') throw notJson("a control character, or the end, within quotes")
        at++
        return character
    }

    private fun escaped(): Char {
        at++
        val character = peek()
        at++
        return when (character) {
            '"', '\\', '/' -> character
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(at, minOf(at + 4, text.length))
                if (digits.length < 4 || !digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) {
                    throw notJson("\\u without four hexadecimal digits")
                }
                at += 4
                digits.toInt(16).toChar()
            }
            else -> throw notJson("an escape that JSON does not have")
        }
    }

    private fun checked(string: String): String {
        if (!isText(string)) throw JsonFault("${shown(string)} holds half a surrogate pair, which is not text")
        return string
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, at)) throw notJson("a value is needed")
        at += word.length
        return value
    }

    private fun number(): Any {
        val start = at
        if (peek() == '-') at++
        val first = at
        digits()
        if (text[first] == '0' && at > first + 1) throw notJson("a number with a leading zero")
        val whole = at
        if (peek() == '.') {
            at++
            digits()
        }
        if (peek() == 'e' || peek() == 'E') {
            at++
            if (peek() == '+' || peek() == '-') at++
            digits()
        }
        val number = text.substring(start, at)
        if (at > whole) {
            val value = number.toDouble()
            if (value.isInfinite()) throw JsonFault("${shown(number)} is too large a number")
            return value
        }
        if (number.length > MOST_DIGITS) throw JsonFault("${shown(number)} is too large a number")
        return number.toLongOrNull() ?: BigInteger(number)
    }

    private fun digits() {
        val start = at
        while (peek() in '0'..'9') at++
        if (at == start) throw notJson("a value is needed")
    }

    private fun skipSpaces() {
        while (at < text.length && text[at] in " \t\n\r") at++
    }

    private fun take(character: Char) {
        if (peek() != character) throw notJson("'$character' is needed")
        at++
    }

    /** The next character, or U+0000 at the end; JSON has no such character outside an escape. */
    private fun peek(): Char = if (at < text.length) text[at] else '\u0000'

    private fun notJson(why: String) = JsonFault("not JSON: $why at character $at")
}

/** Whether every surrogate is one of a pair. */
internal fun isText(string: String): Boolean {
    var i = 0
    while (i < string.length) {
        val character = string[i++]
        if (!character.isSurrogate()) continue
        if (!character.isHighSurrogate() || i == string.length || !string[i].isLowSurrogate()) return false
        i++
    }
    return true
}

/** A string as Python's `json.dumps` writes it: in ASCII, other characters escaped. */
internal fun asciiJson(string: String): String {
    val out = StringBuilder(string.length + 2).append('"')
    for (character in string) {
        when (character) {
            '"' -> out.append("\\\"")
            '\\' -> out.append("\\\\")
            '\n' -> out.append("\\n")
            '\r' -> out.append("\\r")
            '\t' -> out.append("\\t")
            '\b' -> out.append("\\b")
            '\u000c' -> out.append("\\f")
            in ' '..'~' -> out.append(character)
            else -> out.append("\\u").append(character.code.toString(16).padStart(4, '0'))
        }
    }
    return out.append('"').toString()
}

/** A value of JSON in at most 60 characters, for a message. */
internal fun shown(value: Any?): String {
    val json = when (value) {
        is String -> asciiJson(value.take(SHOWN + 1))
        is Map<*, *> -> "a table"
        is List<*> -> "a list"
        else -> value.toString()
    }
    return if (json.length <= SHOWN) json else json.take(SHOWN - 1) + "…"
}
