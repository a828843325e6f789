package io.github.edgeleaf.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.view.inputmethod.EditorInfo
import android.view.inputmethod.InputMethodManager
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ListView
import android.widget.TextView
import io.github.edgeleaf.EdgeleafException
import io.github.edgeleaf.Hit
import io.github.edgeleaf.android.AssetSearch
import java.text.NumberFormat
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/**
 * The search: a field, and results while one types. The field keeps its text through rotations and when the system ends
 * the process; the results are found again, which takes milliseconds.
 */
class SearchActivity : Activity() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Main.immediate)
    private val adapter = HitAdapter()
    private var searching: Job? = null
    private var scrollTo = 0

    private lateinit var query: EditText
    private lateinit var status: TextView
    private lateinit var results: ListView

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_search)
        findViewById<View>(R.id.content).keepClearOfBars()
        query = findViewById(R.id.query)
        status = findViewById(R.id.status)
        results = findViewById(R.id.results)
        results.adapter = adapter
        scrollTo = savedInstanceState?.getInt(SCROLL) ?: 0

        findViewById<View>(R.id.about).setOnClickListener { startActivity(Intent(this, AboutActivity::class.java)) }
        findViewById<View>(R.id.clear).setOnClickListener { query.setText("") }
        findViewById<View>(R.id.again).setOnClickListener { search() }
        query.setHorizontallyScrolling(false) // a long description wraps, and Enter still searches
        query.maxLines = MOST_LINES
        query.setOnEditorActionListener { _, action, _ ->
            if (action == EditorInfo.IME_ACTION_SEARCH) hideKeyboard()
            action == EditorInfo.IME_ACTION_SEARCH
        }
        query.addTextChangedListener(object : TextWatcher {
            override fun afterTextChanged(text: Editable?) = search()
            override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit
        })
        showExamples()
    }

    override fun onPostCreate(savedInstanceState: Bundle?) {
        super.onPostCreate(savedInstanceState)
        search() // the field has its saved text by now; without one, this opens the model in advance
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putInt(SCROLL, results.firstVisiblePosition)
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    /** Searches for what the field holds; an earlier search ends. */
    private fun search() {
        val text = query.text.toString()
        findViewById<View>(R.id.clear).visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
        searching?.cancel()
        searching = scope.launch {
            try {
                val search = (application as DemoApplication).search
                if (!search.isOpen && text.isNotBlank()) show(R.id.opening)
                if (text.isBlank()) {
                    adapter.hits = emptyList()
                    show(R.id.empty)
                }
                val opened = search.open()
                if (text.isBlank()) return@launch
                val start = System.nanoTime()
                val hits = opened.search.search(text, HITS)
                val milliseconds = (System.nanoTime() - start) / 1e6
                show(hits, entries(opened), milliseconds)
            } catch (fault: EdgeleafException.InvalidText) {
                status.text = fault.message?.replaceFirstChar(Char::uppercaseChar)
                adapter.hits = emptyList()
                show(R.id.results)
            } catch (fault: EdgeleafException) {
                show(fault)
            }
        }
    }

    private suspend fun entries(opened: AssetSearch.Opened): Int = withContext(Dispatchers.IO) {
        opened.store.current(opened.encoder.space)?.size ?: 0
    }

    private fun show(hits: List<Hit>, documents: Int, milliseconds: Double) {
        val number = NumberFormat.getInstance().apply { maximumFractionDigits = 1 }
        status.text = resources.getQuantityString(
            R.plurals.found,
            hits.size,
            hits.size,
            number.format(documents),
            number.format(milliseconds),
        )
        adapter.hits = hits
        results.setSelection(scrollTo)
        scrollTo = 0
        show(R.id.results)
    }

    private fun show(fault: EdgeleafException) {
        findViewById<TextView>(R.id.reason).text = fault.message?.replaceFirstChar(Char::uppercaseChar)
        show(R.id.failure)
    }

    /** Shows one of the four states of the screen. */
    private fun show(state: Int) {
        for (each in intArrayOf(R.id.empty, R.id.opening, R.id.failure, R.id.results)) {
            findViewById<View>(each).visibility = if (each == state) View.VISIBLE else View.GONE
        }
        status.visibility = if (state == R.id.results) View.VISIBLE else View.GONE
    }

    private fun showExamples() {
        val list = findViewById<LinearLayout>(R.id.examples)
        for (example in resources.getStringArray(R.array.example_queries)) {
            val row = layoutInflater.inflate(R.layout.example, list, false) as TextView
            row.text = example
            row.setOnClickListener {
                query.setText(example)
                query.setSelection(example.length)
            }
            list.addView(row)
        }
    }

    private fun hideKeyboard() {
        getSystemService(InputMethodManager::class.java).hideSoftInputFromWindow(query.windowToken, 0)
        query.clearFocus()
    }

    private companion object {
        const val SCROLL = "scroll"
        const val HITS = 20
        const val MOST_LINES = 3
    }
}
