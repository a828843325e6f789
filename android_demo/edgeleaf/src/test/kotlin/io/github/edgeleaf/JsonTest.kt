package io.github.edgeleaf

import java.math.BigInteger
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class JsonTest {
    @Test
    fun `values come out as they are`() {
        val text = """ {"a": [1, -2, 0, 1.5, 2e3, true, false, null], "b": {}, "c": [], "": "x"} """
        val expected = mapOf(
            "a" to listOf(1L, -2L, 0L, 1.5, 2000.0, true, false, null), "b" to emptyMap<String, Any>(),
            "c" to emptyList<Any>(), "" to "x",
        )
        assertEquals(expected, parseJson(text))
        assertEquals(BigInteger("9".repeat(40)), parseJson("9".repeat(40)))
        assertEquals(
            "é中😀\"\\/\b\u000c\n\r\t\u0000",
            parseJson("\"é中\\ud83d\\uDE00\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\""),
        )
        assertEquals("é", parseJson("\"é\"".toByteArray()))
    }

    @Test
    fun `ambiguous and broken JSON is refused`() {
        val broken = listOf(
            "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{\"a\" 1}",
            "\"", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "\"\u0000\"", "01", "-01", "-", "+1",
            "1.", ".5", "1e", "1e+", "NaN", "Infinity", "-Infinity", "tru", "nul", "'a'", "1 2", "[] x", "\ufeff1",
            "\"\\u\u0661\u0661\u0661\u0661\"", "\u0661",
        )
        for (text in broken) {
            val fault = assertThrows(text, JsonFault::class.java) { parseJson(text) }
            assertTrue("$text: ${fault.message}", checkNotNull(fault.message).startsWith("not JSON: "))
        }
        val refused = mapOf(
            """{"a": 1, "b": 2, "a": 1}""" to "the key \"a\" occurs twice in a table",
            "\"\\ud800\"" to "\"\\ud800\" holds half a surrogate pair, which is not text",
            "\"\\udc00\\ud800\"" to "\"\\udc00\\ud800\" holds half a surrogate pair, which is not text",
            "1e999" to "\"1e999\" is too large a number",
            "1".repeat(41) to "\"${"1".repeat(41)}\" is too large a number",
            "[".repeat(65) to "brackets nested deeper than 64",
            "{\"a\":".repeat(1_000_000) to "brackets nested deeper than 64",
        )
        for ((text, message) in refused) {
            assertEquals(message, assertThrows(JsonFault::class.java) { parseJson(text) }.message)
        }
        val overlong = byteArrayOf(0x22, 0xc0.toByte(), 0x80.toByte(), 0x22)
        assertEquals("not UTF-8", assertThrows(JsonFault::class.java) { parseJson(overlong) }.message)
        parseJson("[".repeat(64) + "]".repeat(64))
    }

    @Test
    fun `what messages show is short`() {
        assertEquals("\"" + "x".repeat(58) + "…", shown("x".repeat(1000)))
        assertEquals("null", shown(null))
        assertEquals("a table", shown(mapOf("a" to 1)))
    }
}
