package io.github.edgeleaf.android

import android.content.Context
import android.os.Looper
import io.github.edgeleaf.EdgeleafException
import io.github.edgeleaf.QueryEncoder
import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNotSame
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

/** The assets lie in an APK: the encoder stored, everything else compressed. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 35])
class AssetsTest {
    private val context: Context = RuntimeEnvironment.getApplication()
    private val model = File(System.getProperty("edgeleaf.assets"), "query_encoder.onnx")

    @Test
    fun `an asset within an APK gives the vectors of the file`() {
        context.assets.openFd("query_encoder.onnx").use {
            assertTrue("the asset starts within the APK", it.startOffset > 0)
            assertEquals(model.length(), it.length)
        }
        val text = "where is my parcel? 😀"
        val expected = QueryEncoder.open(model).use { it.encode(text) }
        QueryEncoder.fromAsset(context.assets).use { assertArrayEquals(expected, it.encode(text), 0f) }
    }

    @Test
    fun `a compressed asset is refused with the setting that mends it`() {
        val refused = assertThrows(EdgeleafException.NotAnEncoder::class.java) {
            QueryEncoder.fromAsset(context.assets, "compressed.bin")
        }
        assertEquals(
            "the asset compressed.bin is compressed, so it cannot be mapped; leave it as it is with Gradle's " +
                "android { androidResources { noCompress += \"onnx\" } }",
            refused.message,
        )
    }

    @Test
    fun `a missing asset and one that is no encoder are refused by name`() {
        val missing = assertThrows(EdgeleafException.NotAnEncoder::class.java) {
            QueryEncoder.fromAsset(context.assets, "none.onnx")
        }
        assertTrue(missing.message, missing.message!!.startsWith("there is no asset none.onnx; put the"))
        val other = assertThrows(EdgeleafException.NotAnEncoder::class.java) {
            QueryEncoder.fromAsset(context.assets, "other.onnx")
        }
        assertTrue(other.message, other.message!!.startsWith("the asset other.onnx: onnxruntime "))
    }

    @Test
    fun `all who open at once get the same, which opened off the main thread`() {
        val search = AssetSearch(context)
        assertFalse(search.isOpen)
        val opened = runBlocking { List(8) { async(Dispatchers.IO) { search.open() } }.awaitAll() }
        assertEquals(1, opened.distinct().size)
        assertTrue(search.isOpen)
        assertSame(opened.first(), runBlocking { search.open() })
        val hits = runBlocking { opened.first().search.search("a bug that vanishes when you look for it") }
        assertEquals("heisenbug", hits.first().id)
        assertSame(Looper.getMainLooper().thread, Thread.currentThread())
    }

    @Test
    fun `the index is unpacked once, and again where it is damaged`() {
        val first = runBlocking { AssetSearch(context).open() }
        val vectors = first.store.root.walk().first { it.name == "vectors.npy" }
        val written = vectors.lastModified()
        val again = runBlocking { AssetSearch(context).open() }
        assertNotSame(first, again)
        assertEquals(written, vectors.lastModified())
        vectors.writeBytes(byteArrayOf(1, 2, 3))
        val mended = runBlocking { AssetSearch(context).open() }
        assertEquals(first.store.current(first.encoder.space)?.size, mended.store.current(mended.encoder.space)?.size)
        assertNotNull(mended.store.current(mended.encoder.space))
    }

    @Test
    fun `another asset replaces what the last version of the app brought`() {
        runBlocking { AssetSearch(context).open() }
        val marker = context.noBackupFilesDir.resolve("edgeleaf/asset.sha256")
        val current = marker.readText()
        marker.writeText("0".repeat(64))
        runBlocking { AssetSearch(context).open() }
        assertEquals(current, marker.readText())
    }

    @Test
    fun `a wrong hash and a missing index are sentences, and the next call tries again`() {
        val search = AssetSearch(context, index = "other.zip")
        repeat(2) {
            val wrong = assertThrows(EdgeleafException.InstallFailed::class.java) { runBlocking { search.open() } }
            assertTrue(wrong.message, "SHA-256" in wrong.message!!)
            assertFalse(search.isOpen)
        }
        val missing = assertThrows(EdgeleafException.InstallFailed::class.java) {
            runBlocking { AssetSearch(context, index = "none.zip").open() }
        }
        assertTrue(missing.message, missing.message!!.startsWith("there is no asset none.zip.sha256"))
    }
}
