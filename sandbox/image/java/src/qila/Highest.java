package qila;

import java.util.Collection;
import org.eclipse.aether.collection.DependencyGraphTransformer;
import org.eclipse.aether.graph.DependencyNode;
import org.eclipse.aether.util.graph.transformer.ChainedDependencyGraphTransformer;
import org.eclipse.aether.util.graph.transformer.ConflictResolver;
import org.eclipse.aether.util.graph.transformer.JavaDependencyContextRefiner;
import org.eclipse.aether.util.graph.transformer.JavaScopeDeriver;
import org.eclipse.aether.util.graph.transformer.JavaScopeSelector;
import org.eclipse.aether.util.graph.transformer.SimpleOptionalitySelector;

/** Of several versions of an artifact the highest, as Gradle chooses. */
final class Highest extends ConflictResolver.VersionSelector {
    static DependencyGraphTransformer transformer() {
        ConflictResolver resolver = new ConflictResolver(
                new Highest(), new JavaScopeSelector(), new SimpleOptionalitySelector(), new JavaScopeDeriver());
        return new ChainedDependencyGraphTransformer(resolver, new JavaDependencyContextRefiner());
    }

    @Override
    public void selectVersion(ConflictResolver.ConflictContext context) {
        Collection<ConflictResolver.ConflictItem> items = context.getItems();
        ConflictResolver.ConflictItem best = null;
        for (ConflictResolver.ConflictItem item : items) {
            if (best == null || isBetter(item, best)) {
                best = item;
            }
        }
        context.setWinner(best);
    }

    private static boolean isBetter(ConflictResolver.ConflictItem item, ConflictResolver.ConflictItem best) {
        DependencyNode one = item.getNode();
        DependencyNode other = best.getNode();
        int order = one.getVersion().compareTo(other.getVersion());
        return order > 0 || (order == 0 && item.getDepth() < best.getDepth());
    }
}
