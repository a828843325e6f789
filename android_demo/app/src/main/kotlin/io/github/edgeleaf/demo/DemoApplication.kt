package io.github.edgeleaf.demo

import android.app.Application
import io.github.edgeleaf.android.AssetSearch

/** Holds the search for as long as the process lives, so that no rotation opens it again. */
open class DemoApplication : Application() {
    /** Opened by its first user, off the main thread. */
    open val search: AssetSearch by lazy { AssetSearch(this) }
}
