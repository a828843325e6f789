package io.github.edgeleaf.demo

import android.graphics.Insets
import android.os.Build
import android.view.View
import android.view.WindowInsets
import android.widget.LinearLayout
import android.widget.TextView
import io.github.edgeleaf.android.AssetSearch
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

private const val BUG = "a bug that vanishes when you look for it"

/** On the newest and on the oldest Android that the app runs on. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 35])
class SearchActivityTest {
    private var screen = Screen()

    @After
    fun close() = screen.close()

    @Test
    fun `results come while one types, with scores and milliseconds`() {
        val hits = screen.search(BUG)
        assertEquals("heisenbug", hits.first().id)
        assertEquals(20, hits.size)
        assertEquals(hits.map { it.score }.sortedDescending(), hits.map { it.score })
        assertTrue(screen.status, Regex("20 nearest of 1,\\d{3} entries in \\d[\\d.,]* ms").matches(screen.status))
        val row = screen.list.adapter.getView(0, null, screen.list)
        assertEquals("heisenbug", row.findViewById<TextView>(R.id.title).text.toString())
        assertEquals("%.2f".format(hits.first().score), row.findViewById<TextView>(R.id.score).text.toString())
        assertFalse(row.findViewById<TextView>(R.id.text).text.startsWith("heisenbug"))
    }

    @Test
    fun `what was typed last is what is shown`() {
        for (length in 1..BUG.length) screen.type(BUG.take(length))
        screen.type("messy code")
        waitUntil("the last results") { screen.hits.firstOrNull()?.id == "spaghetti code" }
        Thread.sleep(300)
        idle()
        assertEquals("spaghetti code", screen.hits.first().id)
    }

    @Test
    fun `without a query the screen explains itself, and its examples find something`() {
        idle()
        assertTrue(screen.isShown(R.id.empty))
        val examples = screen.view<LinearLayout>(R.id.examples)
        val found = listOf("heisenbug", "software rot", "Easter egg", "vaporware", "Hanlon's Razor", "spaghetti code")
        assertEquals(found.size, examples.childCount)
        for (place in found.indices) {
            val example = examples.getChildAt(place) as TextView
            example.performClick()
            waitUntil("results for ${example.text}") { screen.hits.isNotEmpty() }
            assertEquals(example.text.toString(), screen.query.text.toString())
            assertEquals(example.text.toString(), found[place], screen.hits.first().id)
            screen.tap(R.id.clear)
            assertTrue(screen.isShown(R.id.empty))
        }
    }

    @Test
    fun `blank text is no query`() {
        screen.search(BUG)
        screen.type("  \t ")
        waitUntil("the empty screen") { screen.isShown(R.id.empty) }
        assertFalse(screen.isShown(R.id.results))
        assertFalse(screen.isShown(R.id.status))
    }

    @Test
    fun `emoji, long text and half a pair cost nobody the app`() {
        screen.search("🐛 that vanishes")
        screen.search("word ".repeat(20_000))
        screen.type("half a pair: \ud83d")
        waitUntil("a sentence") { "surrogate" in screen.status }
        assertTrue(screen.hits.isEmpty())
        assertEquals("heisenbug", screen.search(BUG).first().id)
    }

    @Test
    fun `a rotation keeps the query and its results`() {
        screen.search(BUG)
        screen.rotate()
        assertEquals(BUG, screen.query.text.toString())
        waitUntil("results after the rotation") { screen.hits.firstOrNull()?.id == "heisenbug" }
        assertTrue(screen.root.width > screen.root.height)
    }

    @Test
    fun `the end of the process keeps the query`() {
        screen.search(BUG)
        screen = screen.afterProcessDeath()
        assertEquals(BUG, screen.query.text.toString())
        waitUntil("results after the start") { screen.hits.firstOrNull()?.id == "heisenbug" }
        assertTrue(screen.isShown(R.id.results))
    }

    @Test
    fun `all that can be tapped has a label and is large enough`() {
        screen.search(BUG)
        val least = (48 * screen.root.resources.displayMetrics.density).toInt() - 1
        val buttons = everyView(screen.root).filter { it.isShown && it.isClickable && it != screen.list }.toList()
        assertTrue("${buttons.size}", buttons.size >= 3)
        for (button in buttons) {
            val label = button.contentDescription ?: (button as? TextView)?.run { text.ifEmpty { hint } }
            assertFalse("$button has no label", label.isNullOrBlank())
            assertTrue("$button is ${button.width} x ${button.height}", button.width >= least && button.height >= least)
        }
    }

    @Test
    fun `a screen reader hears the term, its score and the text of a row, and how many there are`() {
        val first = screen.search(BUG).first()
        val row = screen.list.adapter.getView(0, null, screen.list)
        val spoken = row.contentDescription.toString()
        assertTrue(spoken, spoken.startsWith("heisenbug. Similarity ${"%.2f".format(first.score)}. A bug that"))
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, screen.view<View>(R.id.status).accessibilityLiveRegion)
    }

    @Test
    fun `the about screen opens`() {
        screen.tap(R.id.about)
        assertEquals(AboutActivity::class.java.name, screen.startedActivity())
    }

    @Test
    fun `nothing lies under the system's bars`() {
        val content = screen.view<View>(R.id.content)
        val insets = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
            WindowInsets.Builder().setInsets(WindowInsets.Type.systemBars(), Insets.of(0, 63, 0, 126)).build()
        } else {
            return // the old class cannot be built
        }
        content.dispatchApplyWindowInsets(insets)
        assertEquals(listOf(0, 63, 0, 126), content.run { listOf(paddingLeft, paddingTop, paddingRight, paddingBottom) })
    }
}

/** What goes wrong costs a sentence, and a way on. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 35])
class FailureTest {
    /** An app that was built without its encoder, until somebody mends it. */
    class NoEncoder : DemoApplication() {
        var isMended = false
        private val broken by lazy { AssetSearch(this, encoder = "none.onnx") }
        override val search: AssetSearch get() = if (isMended) super.search else broken
    }

    class NoIndex : DemoApplication() {
        override val search: AssetSearch by lazy { AssetSearch(this, index = "none.zip") }
    }

    @Test
    @Config(application = NoEncoder::class)
    fun `a missing encoder is a sentence, and another try helps once it is there`() {
        val screen = Screen()
        screen.type(BUG)
        waitUntil("the failure") { screen.isShown(R.id.failure) }
        assertTrue(screen.reason, screen.reason.startsWith("There is no asset none.onnx; put the query_encoder.onnx"))
        assertFalse(screen.isShown(R.id.results))
        (RuntimeEnvironment.getApplication() as NoEncoder).isMended = true
        screen.tap(R.id.again)
        waitUntil("results") { screen.isShown(R.id.results) && screen.hits.isNotEmpty() }
        assertFalse(screen.isShown(R.id.failure))
        screen.close()
    }

    @Test
    @Config(application = NoIndex::class)
    fun `a missing index is a sentence before anybody types`() {
        val screen = Screen()
        waitUntil("the failure") { screen.isShown(R.id.failure) }
        assertTrue(screen.reason, screen.reason.startsWith("There is no asset none.zip.sha256"))
        screen.close()
    }

    @Test
    fun `a damaged index is replaced by the app's own`() {
        val first = Screen()
        first.search(BUG)
        first.close()
        val application = RuntimeEnvironment.getApplication()
        val vectors = application.noBackupFilesDir.walk().first { it.name == "vectors.npy" }
        vectors.writeBytes(byteArrayOf(1, 2, 3))
        val again = AssetSearch(application)
        val opened = kotlinx.coroutines.runBlocking { again.open() }
        assertNotNull(opened.store.current(opened.encoder.space))
    }
}
