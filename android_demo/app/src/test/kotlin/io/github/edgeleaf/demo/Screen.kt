package io.github.edgeleaf.demo

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Bundle
import android.os.Looper
import android.os.Parcel
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.ListView
import android.widget.TextView
import io.github.edgeleaf.Hit
import java.io.File
import org.junit.Assert.fail
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController

/** Drives the search screen as a person would. */
class Screen(private val controller: ActivityController<SearchActivity> = started()) {
    private val activity: SearchActivity get() = controller.get()

    val query: EditText get() = activity.findViewById(R.id.query)
    val status: String get() = activity.findViewById<TextView>(R.id.status).text.toString()
    val hits: List<Hit> get() = (list.adapter as HitAdapter).hits
    val list: ListView get() = activity.findViewById(R.id.results)
    val reason: String get() = activity.findViewById<TextView>(R.id.reason).text.toString()
    val root: View get() = activity.window.decorView

    fun <T : View> view(id: Int): T = activity.findViewById(id)

    fun isShown(id: Int): Boolean = view<View>(id).isShown

    fun type(text: String) {
        query.setText(text)
    }

    /** Types and waits for results. */
    fun search(text: String): List<Hit> {
        type(text)
        waitUntil("results for $text") { isShown(R.id.results) && hits.isNotEmpty() }
        return hits
    }

    fun tap(id: Int) {
        view<View>(id).performClick()
        idle()
    }

    fun rotate() {
        org.robolectric.RuntimeEnvironment.setQualifiers("+land")
        controller.configurationChange().visible()
        idle()
    }

    /** Saves what the system keeps, ends the activity, and starts another from the saved bytes. */
    fun afterProcessDeath(): Screen {
        val saved = Bundle()
        controller.pause().stop().saveInstanceState(saved).destroy()
        return Screen(Robolectric.buildActivity(SearchActivity::class.java).setup(reread(saved)).visible())
    }

    fun startedActivity(): String? = shadowOf(activity).nextStartedActivity?.component?.className

    fun close() {
        controller.pause().stop().destroy()
    }

    companion object {
        fun started(): ActivityController<SearchActivity> =
            Robolectric.buildActivity(SearchActivity::class.java).setup().visible()

        private fun reread(bundle: Bundle): Bundle {
            val parcel = Parcel.obtain()
            try {
                bundle.writeToParcel(parcel, 0)
                val bytes = parcel.marshall()
                parcel.unmarshall(bytes, 0, bytes.size)
                parcel.setDataPosition(0)
                return Bundle.CREATOR.createFromParcel(parcel)
            } finally {
                parcel.recycle()
            }
        }
    }
}

/** Lets the main thread do all that it has to do. */
fun idle(): Unit = shadowOf(Looper.getMainLooper()).idle()

/** Waits for work in other threads. */
fun waitUntil(what: String, isSo: () -> Boolean) {
    repeat(1000) {
        idle()
        if (isSo()) return
        Thread.sleep(20)
    }
    fail("not seen after 20 seconds: $what")
}

/** Draws a window into `NAME.png` in the folder that the build names. */
fun screenshot(activity: Activity, name: String) {
    idle()
    val window = activity.window.decorView
    val bitmap = Bitmap.createBitmap(window.width, window.height, Bitmap.Config.ARGB_8888)
    window.draw(Canvas(bitmap))
    val folder = File(System.getProperty("screenshots")!!)
    folder.mkdirs()
    folder.resolve("$name.png").outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
}

/** All views below one, itself included. */
fun everyView(view: View): Sequence<View> = sequence {
    yield(view)
    if (view is ViewGroup) for (child in 0 until view.childCount) yieldAll(everyView(view.getChildAt(child)))
}
