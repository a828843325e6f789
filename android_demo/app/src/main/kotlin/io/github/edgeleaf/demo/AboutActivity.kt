package io.github.edgeleaf.demo

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.LinearLayout
import android.widget.TextView
import io.github.edgeleaf.EdgeleafException
import java.io.IOException
import java.text.NumberFormat
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import org.json.JSONException
import org.json.JSONObject

/** What the encoder is: its vector space, the figures of its certificate, sizes, licences. */
class AboutActivity : Activity() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Main.immediate)
    private val number: NumberFormat = NumberFormat.getInstance()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_about)
        findViewById<View>(R.id.content).keepClearOfBars()
        findViewById<View>(R.id.back).setOnClickListener { finish() }
        paragraph(getString(R.string.about_lead))
        scope.launch {
            try {
                showSpace()
                showCertificate()
                showSizes()
            } catch (fault: EdgeleafException) {
                paragraph(fault.message.orEmpty())
            }
            section(R.string.section_licences)
            paragraph(getString(R.string.licences))
        }
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    private suspend fun showSpace() {
        val encoder = (application as DemoApplication).search.open().encoder
        section(R.string.section_space)
        fact(R.string.teacher, encoder.space.teacher)
        fact(R.string.numbers, number.format(encoder.space.dim))
        fact(R.string.window, number.format(encoder.window))
        fact(R.string.space_id, encoder.space.id)
    }

    private suspend fun showCertificate() {
        section(R.string.section_certificate)
        try {
            val figures = withContext(Dispatchers.IO) {
                Certificate.read(assets.open("certificate.json").use { it.readBytes().decodeToString() })
            }
            fact(R.string.verdict, getString(if (figures.passed) R.string.certificate_passed else R.string.certificate_failed))
            fact(R.string.cosine, decimals(3).format(figures.cosine))
            fact(R.string.cosine_low, decimals(3).format(figures.lowCosine))
            fact(R.string.overlap, NumberFormat.getPercentInstance().format(figures.overlap))
            fact(
                R.string.parity,
                getString(R.string.parity_value, number.format(figures.mismatches), number.format(figures.tried)),
            )
        } catch (error: IOException) {
            paragraph(getString(R.string.no_certificate, error.message))
        } catch (error: JSONException) {
            paragraph(getString(R.string.no_certificate, error.message))
        }
    }

    private suspend fun showSizes() {
        val opened = (application as DemoApplication).search.open()
        val (encoder, index, entries) = withContext(Dispatchers.IO) {
            Triple(
                assets.openFd("query_encoder.onnx").use { it.length },
                opened.store.root.walk().filter { it.isFile }.sumOf { it.length() },
                opened.store.current(opened.encoder.space)?.size ?: 0,
            )
        }
        section(R.string.section_size)
        fact(R.string.encoder_size, megabytes(encoder))
        fact(R.string.index_size, megabytes(index))
        fact(R.string.entries, number.format(entries))
    }

    private fun megabytes(bytes: Long) = getString(R.string.megabytes, decimals(1).format(bytes / 1e6))

    private fun decimals(digits: Int) = NumberFormat.getInstance().apply {
        minimumFractionDigits = digits
        maximumFractionDigits = digits
    }

    private val sections: LinearLayout get() = findViewById(R.id.sections)

    private fun section(title: Int) = add(R.layout.section, getString(title))

    private fun paragraph(text: String) = add(R.layout.paragraph, text)

    private fun add(layout: Int, text: String) {
        val view = layoutInflater.inflate(layout, sections, false) as TextView
        view.text = text
        sections.addView(view)
    }

    private fun fact(name: Int, value: String) {
        val view = layoutInflater.inflate(R.layout.fact, sections, false)
        view.findViewById<TextView>(R.id.name).setText(name)
        view.findViewById<TextView>(R.id.value).text = value
        sections.addView(view)
    }
}

/** The figures of a bundle's certificate that the app shows, those of the fused file. */
class Certificate(
    val passed: Boolean,
    val cosine: Double,
    val lowCosine: Double,
    val overlap: Double,
    val tried: Int,
    val mismatches: Int,
) {
    companion object {
        /** @throws JSONException it is no certificate. */
        fun read(json: String): Certificate {
            val root = JSONObject(json)
            val rungs = root.getJSONArray("rungs")
            val fused = rungs.getJSONObject(rungs.length() - 1)
            val cosines = fused.getJSONObject("teacher_cosine")
            val parity = root.getJSONObject("parity")
            return Certificate(
                passed = root.getBoolean("passed"),
                cosine = cosines.getDouble("mean"),
                lowCosine = cosines.getDouble("p05"),
                overlap = fused.getDouble("overlap_at_10"),
                tried = parity.getInt("tried"),
                mismatches = parity.getInt("mismatches"),
            )
        }
    }
}
