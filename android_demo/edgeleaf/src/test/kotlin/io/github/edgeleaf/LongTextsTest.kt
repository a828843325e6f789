package io.github.edgeleaf

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class LongTextsTest {
    @Test
    fun `long texts are shortened as in Python`() {
        val lines = Fixtures.lines("long.jsonl").toList()
        for ((entry, name) in listOf("7 5" to "shortened", "7 0" to "words", "7 0  。，" to "scripts")) {
            val rules = checkNotNull(LongTexts.read(entry))
            assertTrue(lines.size > 40 && lines.count { it["text"] != it[name] } > 25)
            for (line in lines) assertEquals(line[name], rules.shortened(line["text"] as String))
        }
    }

    @Test
    fun `a file without a valid entry leaves texts alone`() {
        for (entry in listOf(null, "", "7", " 7 5", "7 5 ", "1234567890 5", "-7 5", "٧ 5", "7 0 。", "7 0 x")) {
            assertNull(entry, LongTexts.read(entry))
        }
    }
}
