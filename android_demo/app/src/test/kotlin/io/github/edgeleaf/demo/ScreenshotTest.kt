package io.github.edgeleaf.demo

import android.app.Activity
import android.widget.TextView
import io.github.edgeleaf.demo.FailureTest.NoEncoder
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

/** Pictures for people to look at, in `target/screenshots`; no text in them may be cut off. */
@RunWith(RobolectricTestRunner::class)
class ScreenshotTest {
    @Test
    fun light() = results("light")

    @Test
    @Config(qualifiers = "+night")
    fun dark() = results("dark")

    @Test
    @Config(qualifiers = "+land")
    fun landscape() = results("landscape")

    @Test
    @Config(qualifiers = "+land-night")
    fun landscapeDark() = results("landscape-dark")

    @Test
    fun largeFont() {
        RuntimeEnvironment.setFontScale(2f)
        results("large-font")
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-small-notlong-notround-240dpi")
    fun smallScreen() = results("small")

    @Test
    @Config(qualifiers = "w1280dp-h800dp-xlarge-notlong-notround-land-mdpi")
    fun tablet() = results("tablet")

    @Test
    @Config(application = NoEncoder::class)
    fun failure() {
        val controller = Screen.started()
        val screen = Screen(controller)
        waitUntil("the failure") { screen.isShown(R.id.failure) }
        taken(controller.get(), "failure")
        screen.close()
    }

    @Test
    fun about() = about("about")

    @Test
    @Config(qualifiers = "+night")
    fun aboutDark() = about("about-dark")

    private fun results(name: String) {
        val controller = Screen.started()
        val screen = Screen(controller)
        idle()
        taken(controller.get(), "$name-empty")
        screen.search("a bug that vanishes when you look for it")
        taken(controller.get(), name)
        screen.close()
    }

    private fun about(name: String) {
        val controller = Robolectric.buildActivity(AboutActivity::class.java).setup().visible()
        val root = controller.get().window.decorView
        waitUntil("the licences") { everyView(root).any { it is TextView && "Jargon File" in it.text } }
        taken(controller.get(), name)
        controller.pause().stop().destroy()
    }

    private fun taken(activity: Activity, name: String) {
        screenshot(activity, name)
        val texts = everyView(activity.window.decorView).filterIsInstance<TextView>().filter { it.isShown }.toList()
        assertTrue("$name shows ${texts.size} texts", texts.size >= 3)
        for (view in texts) {
            val layout = view.layout ?: continue
            assertTrue("$name cuts off ${view.text}", layout.height <= view.height)
            assertEquals("$name shortens ${view.text}", 0, (0 until layout.lineCount).sumOf(layout::getEllipsisCount))
        }
    }
}
