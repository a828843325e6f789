package io.github.edgeleaf;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.File;
import java.util.List;
import org.junit.Test;

/** The library as Java sees it. */
public class JavaUseTest {
    @Test
    public void tenLinesOfJava() {
        File model = Fixtures.INSTANCE.getModel();
        File folder = Fixtures.INSTANCE.file("index");
        try (QueryEncoder encoder = QueryEncoder.open(model);
                DocumentIndex index = DocumentIndex.open(folder, encoder.getSpace())) {
            float[] vector = encoder.encode("where is my parcel?");
            List<Hit> hits = index.search(vector, 3);
            assertEquals(3, hits.size());
            assertEquals(10, index.search(vector).size());
            assertEquals(2, encoder.encode(List.of("one", "two")).size());
        }
    }

    @Test
    public void nullIsNoText() {
        List<String> texts = java.util.Arrays.asList("text", null);
        EdgeleafException.InvalidText error =
                assertThrows(EdgeleafException.InvalidText.class, () -> Fixtures.INSTANCE.getEncoder().encode(texts));
        assertEquals("text 1 is null; every text must be a string", error.getMessage());
    }
}
