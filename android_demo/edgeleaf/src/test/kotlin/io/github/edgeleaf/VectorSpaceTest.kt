package io.github.edgeleaf

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class VectorSpaceTest {
    private val table = mapOf(
        "teacher" to "someone/teacher", "revision" to null, "weights_sha256" to "5f", "pooling" to "mean",
        "normalized" to true, "query_prompt" to "query: ", "document_prompt" to "", "dim" to 768L,
    )

    private fun space(vararg changes: Pair<String, Any?>) = VectorSpace.read(table + changes)

    @Test
    fun `ids equal Python's, whatever is in the prompts`() {
        val lines = Fixtures.lines("spaces.jsonl").toList()
        assertEquals(6, lines.size)
        for (line in lines) assertEquals(line["id"], VectorSpace.read(line["space"]).id)
    }

    @Test
    fun `the teacher's name and revision do not count, everything else does`() {
        val one = space()
        assertTrue(one.sameAs(space("teacher" to "elsewhere", "revision" to "main")))
        assertNotEquals(one, space("revision" to "main"))
        assertEquals(one, space())
        assertEquals(one.hashCode(), space().hashCode())
        val others = mapOf(
            "weights_sha256" to "60", "pooling" to "cls", "normalized" to false, "query_prompt" to "",
            "document_prompt" to " ", "dim" to 767L,
        )
        for ((key, value) in others) {
            assertFalse(key, one.sameAs(space(key to value)))
            assertFalse(key, space(key to value).sameAs(one))
        }
    }

    @Test
    fun `what an older record lacks is not compared`() {
        val newer = space("tokenizer_sha256" to "ab", "attention" to "causal")
        assertTrue(newer.sameAs(space()) && space().sameAs(newer))
        assertFalse(newer.sameAs(space("tokenizer_sha256" to "cd", "attention" to "causal")))
        assertFalse(newer.sameAs(space("attention" to "bidirectional")))
    }

    @Test
    fun `what the teacher reads around a text is compared even if one record has nothing there`() {
        for (key in listOf("query_context", "query_suffix", "document_suffix", "bos_token", "eos_token")) {
            val around = space(key to "</s>")
            assertTrue(key, around.sameAs(space(key to "</s>")) && around == space(key to "</s>"))
            assertFalse(key, around.sameAs(space()) || space().sameAs(around))
            assertFalse(key, around.sameAs(space(key to "<s>")))
            assertNotEquals(key, space().id, around.id)
            assertEquals(key, space().id, space(key to null).id)
        }
    }

    @Test
    fun `faults name the key`() {
        val faults = mapOf(
            table - "pooling" to "pooling is missing",
            table + ("colour" to 1L) to "unknown key colour",
            table + ("dim" to 0L) to "dim is 0; a whole number, 1 to 65536, is needed",
            table + ("dim" to 768.0) to "dim is 768.0; a whole number, 1 to 65536, is needed",
            table + ("dim" to 65_537L) to "dim is 65537; a whole number, 1 to 65536, is needed",
            table + ("teacher" to "") to "teacher is \"\"; a name is needed",
            table + ("pooling" to "a\nb") to "pooling is \"a\\nb\"; a name is needed",
            table + ("weights_sha256" to null) to "weights_sha256 is null; a text is needed",
            table + ("revision" to 1L) to "revision is 1; a text is needed",
            table + ("normalized" to "yes") to "normalized is \"yes\"; true or false is needed",
            table + ("attention" to "both") to "attention is \"both\"; bidirectional or causal is needed",
            table + ("eos_token" to 2L) to "eos_token is 2; a text is needed",
            listOf(1L) to "it is not a table",
        )
        for ((value, message) in faults) {
            assertEquals(message, assertThrows(JsonFault::class.java) { VectorSpace.read(value) }.message)
        }
        val inner = assertThrows(JsonFault::class.java) { VectorSpace.read(table - "dim", "space.") }
        assertEquals("space.dim is missing", inner.message)
    }
}
