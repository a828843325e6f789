package io.github.edgeleaf.demo

import android.annotation.TargetApi
import android.os.Build
import android.view.View
import android.view.WindowInsets
import android.widget.FrameLayout

private const val MOST_WIDTH_DP = 720

/**
 * Keeps a view clear of the system's bars, cut-outs and the keyboard, which lie over the window from Android 15 on, and
 * no wider than is easy to read. The view must lie in a [FrameLayout].
 */
fun View.keepClearOfBars() {
    setOnApplyWindowInsetsListener { view, insets ->
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) view.pad(insets) else view.padBefore11(insets)
        insets
    }
    addOnLayoutChangeListener { view, left, _, right, _, oldLeft, _, oldRight, _ ->
        if (right - left != oldRight - oldLeft) view.post { view.narrow() }
    }
}

@TargetApi(Build.VERSION_CODES.R)
private fun View.pad(insets: WindowInsets) {
    val bars = insets.getInsets(
        WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime(),
    )
    setPadding(bars.left, bars.top, bars.right, bars.bottom)
}

@Suppress("DEPRECATION")
private fun View.padBefore11(insets: WindowInsets) = setPadding(
    insets.systemWindowInsetLeft,
    insets.systemWindowInsetTop,
    insets.systemWindowInsetRight,
    insets.systemWindowInsetBottom,
)

private fun View.narrow() {
    val most = (MOST_WIDTH_DP * resources.displayMetrics.density).toInt()
    val margin = maxOf(0, ((parent as View).width - most) / 2)
    val params = layoutParams as FrameLayout.LayoutParams
    if (params.leftMargin != margin) {
        params.setMargins(margin, 0, margin, 0)
        layoutParams = params
    }
}
