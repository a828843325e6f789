package io.github.edgeleaf.android

import android.content.Context
import io.github.edgeleaf.DocumentIndex
import io.github.edgeleaf.EdgeleafException
import io.github.edgeleaf.IndexStore
import io.github.edgeleaf.QueryEncoder
import io.github.edgeleaf.SemanticSearch
import java.io.File
import java.io.IOException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.async

/**
 * Search for a whole app, with an encoder and an index among its assets. Keep one in the `Application`: it opens both
 * once, off the main thread, and keeps them open for the life of the process, so no activity has to open them again.
 *
 * ```
 * class MyApplication : Application() {
 *     val search by lazy { AssetSearch(this) }
 * }
 *
 * // in a coroutine of an activity
 * val hits = (application as MyApplication).search.open().search.search(text)
 * ```
 *
 * The index is a zip file of what `edgeleaf index` wrote. The asset `NAME.sha256` beside it is a text file with the
 * zip's SHA-256, the 64 digits alone. The index is unpacked into `noBackupFilesDir/edgeleaf`, and again when an update
 * of the app brings another one. An index that your server sends goes into [Opened.store]; it is used until the app
 * brings another one.
 *
 * All methods may be called from any thread.
 *
 * @param context any context; only its application is kept.
 * @param encoder the name of the encoder's asset, see [fromAsset].
 * @param index the name of the index's asset.
 */
public class AssetSearch @JvmOverloads constructor(
    context: Context,
    private val encoder: String = "query_encoder.onnx",
    private val index: String = "index.zip",
) {
    private val application: Context = context.applicationContext ?: context
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.IO)
    private var opening: Deferred<Opened>? = null

    /**
     * The open encoder and index.
     *
     * @property encoder stays open for the life of the process; do not close it.
     * @property store holds the index; [IndexStore.install] puts a newer one there. Call it off the main thread.
     * @property search for one search field; a second field needs a [SemanticSearch] of its own.
     */
    public class Opened internal constructor(
        public val encoder: QueryEncoder,
        public val store: IndexStore,
        public val search: SemanticSearch,
    )

    /** Whether [open] would return at once. */
    public val isOpen: Boolean
        get() = synchronized(this) { opening?.run { isCompleted && !isCancelled } ?: false }

    /**
     * Opens encoder and index, or waits until they are open. After a failure, the next call tries again.
     *
     * @throws EdgeleafException what [fromAsset] throws; or [EdgeleafException.InstallFailed] if the index's asset is
     *   missing, has another hash or is damaged, or if there is no room for it; or [EdgeleafException.WrongSpace] if it
     *   is of another space than the encoder. The message says what to do.
     */
    public suspend fun open(): Opened = synchronized(this) {
        opening?.takeUnless { it.isCancelled } ?: scope.async { opened() }.also { opening = it }
    }.await()

    private fun opened(): Opened {
        val encoder = QueryEncoder.fromAsset(application.assets, encoder)
        try {
            val folder = application.noBackupFilesDir.resolve("edgeleaf")
            val store = IndexStore(folder.resolve("index"))
            val sha256 = hashOfAsset()
            val marker = folder.resolve("asset.sha256")
            if (marker.textOrNull() != sha256 || !isUsable(store, encoder)) {
                install(store, sha256, encoder)
                marker.writeText(sha256)
            }
            return Opened(encoder, store, SemanticSearch(encoder, store))
        } catch (error: Throwable) {
            encoder.close()
            throw error
        }
    }

    private fun hashOfAsset(): String = try {
        application.assets.open("$index.sha256").use { it.readBytes().decodeToString().trim() }
    } catch (error: IOException) {
        throw EdgeleafException.InstallFailed(
            "there is no asset $index.sha256; put the index's zip file and its SHA-256 into src/main/assets",
            error,
        )
    }

    private fun install(store: IndexStore, sha256: String, encoder: QueryEncoder): DocumentIndex {
        val zip = try {
            application.assets.open(index)
        } catch (error: IOException) {
            throw EdgeleafException.InstallFailed(
                "there is no asset $index; put the zip file of what edgeleaf index wrote into src/main/assets",
                error,
            )
        }
        return zip.use { store.install(it, sha256, encoder.space) }
    }

    /** Whether an index is installed that this encoder can search. If not, the asset replaces it. */
    private fun isUsable(store: IndexStore, encoder: QueryEncoder): Boolean = try {
        store.current(encoder.space) != null
    } catch (_: EdgeleafException) {
        false
    }

    private fun File.textOrNull(): String? = if (isFile) readText() else null
}
