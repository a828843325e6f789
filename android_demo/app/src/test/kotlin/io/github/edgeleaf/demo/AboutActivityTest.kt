package io.github.edgeleaf.demo

import android.widget.TextView
import org.json.JSONException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 35])
class AboutActivityTest {
    @Test
    fun `it says whose space this is, what the certificate says, how large all is, and under which licences`() {
        val controller = Robolectric.buildActivity(AboutActivity::class.java).setup().visible()
        val root = controller.get().window.decorView
        fun texts() = everyView(root).filterIsInstance<TextView>().map { it.text.toString() }.toList()
        waitUntil("the licences") { texts().any { "Jargon File 4.4.7" in it } }
        val texts = texts()
        fun valueOf(name: String) = texts[texts.indexOf(name) + 1]
        assertEquals("sentence-transformers/all-mpnet-base-v2", valueOf("Teacher"))
        assertEquals("768", valueOf("Numbers per vector"))
        assertEquals("128", valueOf("Tokens read of a query"))
        assertTrue(valueOf("Identity").startsWith("all-mpnet-base-v2/768/"))
        assertEquals("Passed", valueOf("Verdict"))
        assertEquals("0.894", valueOf("Cosine to the teacher, mean"))
        assertEquals("80%", valueOf("Same first ten results as the teacher"))
        assertTrue(valueOf("Texts with other tokens than the reference").startsWith("0 of 5"))
        assertEquals("24.0 MB", valueOf("Encoder, tokenizer included"))
        assertTrue(texts.any { "MIT" in it && "Apache-2.0" in it && "public domain" in it })
        controller.pause().stop().destroy()
    }

    @Test
    fun `a file that is no certificate is refused`() {
        assertThrows(JSONException::class.java) { Certificate.read("{}") }
        assertThrows(JSONException::class.java) { Certificate.read("no JSON") }
    }
}
